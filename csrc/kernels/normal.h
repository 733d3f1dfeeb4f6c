// Philox 4x32-10 and the normals made of it; see include/x2ct/noise.h.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"

namespace x2ct::kernels {

using Word = std::uint32_t;

X2CT_BOTH Word high(Word a, Word b) { return static_cast<Word>((static_cast<std::uint64_t>(a) * b) >> 32); }

X2CT_BOTH void philox_rounds(Word& c0, Word& c1, Word& c2, Word& c3, Word k0, Word k1) {
    for (int round = 0; round < 10; ++round) {
        const Word h0 = high(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
        const Word h1 = high(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
}

// sqrt(-2 ln u) of u = (w' + 1/2) 2^-31 in (0, 1], w' the upper 31 bits of w.
X2CT_BOTH float radius(Word w) {
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

// Cosine and sine of 2 pi (w + 1/2) 2^-32 - pi/4: quarter turns from the upper two bits, the rest by Taylor series.
X2CT_BOTH void direction(Word w, float& cosine, float& sine) {
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

// The normals of the voxels 4 block .. 4 block + 3.
X2CT_BOTH void normal_block(std::uint64_t block, std::uint64_t seed, Word draw, Word sample, float out[4]) {
    Word w[4] = {static_cast<Word>(block), static_cast<Word>(block >> 32), draw, sample};
    philox_rounds(w[0], w[1], w[2], w[3], static_cast<Word>(seed), static_cast<Word>(seed >> 32));
    for (int pair = 0; pair < 4; pair += 2) {
        float cosine, sine;
        direction(w[pair + 1], cosine, sine);
        const float r = radius(w[pair]);
        out[pair] = r * cosine;
        out[pair + 1] = r * sine;
    }
}

}  // namespace x2ct::kernels
