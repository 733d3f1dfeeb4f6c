#include "x2ct/noise.h"

#include <algorithm>

#include "core/parallel.h"
#include "kernels/normal.h"

namespace x2ct {
namespace {

using namespace kernels;

constexpr int kLanes = 64;  // Philox blocks that are worked on side by side, four voxels each

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
