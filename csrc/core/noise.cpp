#include "x2ct/noise.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "multiversion.h"

namespace x2ct {
namespace {

constexpr int kLanes = 64;  // Philox blocks that are worked on side by side, four voxels each

using Word = std::uint32_t;

X2CT_INLINE Word high(Word a, Word b) { return static_cast<Word>((static_cast<std::uint64_t>(a) * b) >> 32); }

X2CT_INLINE void philox_rounds(Word& c0, Word& c1, Word& c2, Word& c3, Word k0, Word k1) {
    for (int round = 0; round < 10; ++round) {
        const Word h0 = high(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
        const Word h1 = high(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
}

// sqrt(-2 ln u) of u = (w' + 1/2) 2^-31 in (0, 1], w' the upper 31 bits of w.
X2CT_INLINE float radius(Word w) {
    const float u = std::fma(static_cast<float>(static_cast<std::int32_t>(w >> 1)), 0x1p-31f, 0x1p-32f);
    // u = 2^e m with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh(s), s = (m - 1)/(m + 1), |s| < 0.172, by its series.
    const std::int32_t bits = std::bit_cast<std::int32_t>(u) - 0x3f3504f3;
    const float e = static_cast<float>(bits >> 23);
    const float m = std::bit_cast<float>((bits & 0x7fffff) + 0x3f3504f3);
    const float s = (m - 1.0f) / (m + 1.0f);
    const float s2 = s * s;
    float series = std::fma(s2, 1.0f / 9, 1.0f / 7);
    series = std::fma(series, s2, 1.0f / 5);
    series = std::fma(series, s2, 1.0f / 3);
    const float ln_m = 2.0f * std::fma(series * s2, s, s);
    return std::sqrt(-2.0f * std::fma(e, 0x1.62e430p-1f, ln_m));
}

// Cosine and sine of 2 pi (w + 1/2) 2^-32: the quarter turn from the upper two bits, the rest by Taylor's series.
X2CT_INLINE void direction(Word w, float& cosine, float& sine) {
    const auto rest = static_cast<std::int32_t>(w & 0x3fffffffu) - 0x20000000;  // an eighth of a turn either way
    const float angle = std::fma(static_cast<float>(rest), 0x1p-30f, 0x1p-31f) * 0x1.921fb6p+0f;
    const float t = angle * angle;
    float s = std::fma(t, 1.0f / 362880, -1.0f / 5040);
    s = std::fma(s, t, 1.0f / 120);
    s = std::fma(s, t, -1.0f / 6);
    s = std::fma(s * t, angle, angle);
    float c = std::fma(t, -1.0f / 3628800, 1.0f / 40320);
    c = std::fma(c, t, -1.0f / 720);
    c = std::fma(c, t, 1.0f / 24);
    c = std::fma(c, t, -0.5f);
    c = std::fma(c, t, 1.0f);
    const Word quarter = w >> 30;
    const float swapped_c = (quarter & 1) ? s : c, swapped_s = (quarter & 1) ? c : s;
    const Word negative_c = ((quarter + 1) & 2) << 30, negative_s = (quarter & 2) << 30;
    cosine = std::bit_cast<float>(std::bit_cast<Word>(swapped_c) ^ negative_c);
    sine = std::bit_cast<float>(std::bit_cast<Word>(swapped_s) ^ negative_s);
}

// The normals of kLanes blocks from `block` on. The arrays let the compiler work on many blocks at once.
X2CT_MULTIVERSION
void normal_blocks(float* out, std::uint64_t block, const NoiseKey& key) {
    alignas(64) Word w[4][kLanes];
    alignas(64) float n[4][kLanes];
    const Word k0 = static_cast<Word>(key.seed), k1 = static_cast<Word>(key.seed >> 32);
    const Word draw = key.draw, sample = key.sample;
    for (int i = 0; i < kLanes; ++i) {
        const std::uint64_t at = block + static_cast<std::uint64_t>(i);
        Word c0 = static_cast<Word>(at), c1 = static_cast<Word>(at >> 32), c2 = draw, c3 = sample;
        philox_rounds(c0, c1, c2, c3, k0, k1);
        w[0][i] = c0, w[1][i] = c1, w[2][i] = c2, w[3][i] = c3;
    }
    for (int pair = 0; pair < 4; pair += 2) {
        for (int i = 0; i < kLanes; ++i) {
            float cosine, sine;
            direction(w[pair + 1][i], cosine, sine);
            const float r = radius(w[pair][i]);
            n[pair][i] = r * cosine;
            n[pair + 1][i] = r * sine;
        }
    }
    for (int i = 0; i < kLanes; ++i) {
        for (int j = 0; j < 4; ++j) out[4 * i + j] = n[j][i];
    }
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
    philox_rounds(counter[0], counter[1], counter[2], counter[3], key[0], key[1]);
    return counter;
}

void normal(float* out, std::int64_t first, std::int64_t count, const NoiseKey& key) {
    constexpr std::int64_t kStride = 4 * kLanes;
    const std::int64_t end = first + count;
    std::int64_t at = first;
    while (at < end) {
        const std::int64_t from = at % 4;
        if (from == 0 && end - at >= kStride) {
            normal_blocks(out + (at - first), static_cast<std::uint64_t>(at / 4), key);
            at += kStride;
            continue;
        }
        float whole[kStride];  // the ends of the range: the same blocks, of which a part is wanted
        normal_blocks(whole, static_cast<std::uint64_t>(at / 4), key);
        const std::int64_t take = std::min(kStride - from, end - at);
        std::copy_n(whole + from, take, out + (at - first));
        at += take;
    }
}

}  // namespace x2ct
