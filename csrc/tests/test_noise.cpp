// Noise: the published known answers, independence of how the range is cut, and the moments of a normal.
#include <cstring>
#include <vector>

#include "check.h"
#include "core/parallel.h"
#include "x2ct/noise.h"

namespace {

using x2ct::NoiseKey;
using Block = std::array<std::uint32_t, 4>;

// Salmon et al. 2011: the known-answer tests published with the generator.
void known_answers() {
    CHECK((x2ct::philox({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    CHECK((x2ct::philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    CHECK((x2ct::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
           Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Each voxel's noise is the exact Box-Muller transform of its Philox words, within float's rounding.
void transform() {
    const NoiseKey key{0x0123456789abcdefull, 7, 11};
    std::vector<float> noise(4 * 5000);
    x2ct::normal(noise.data(), 0, static_cast<std::int64_t>(noise.size()), key);
    double worst = 0;
    for (std::uint32_t block = 0; block < 5000; ++block) {
        const Block w = x2ct::philox({block, 0, key.draw, key.sample}, {0x89abcdef, 0x01234567});
        for (int pair = 0; pair < 4; pair += 2) {
            const double u = static_cast<float>(((w[pair] >> 1) + 0.5) * 0x1p-31);  // u itself is a float
            const double radius = std::sqrt(-2 * std::log(u));
            // The upper two bits count quarter turns, the rest lies symmetrically about them.
            const double turns = (w[pair + 1] >> 30) / 4.0 + ((w[pair + 1] & 0x3fffffff) - 0x20000000 + 0.5) * 0x1p-32;
            const double angle = 2 * std::acos(-1.0) * turns;
            worst = std::max(worst, std::abs(noise[4 * block + pair] - radius * std::cos(angle)));
            worst = std::max(worst, std::abs(noise[4 * block + pair + 1] - radius * std::sin(angle)));
        }
    }
    CHECK(worst < 2e-6);
}

void any_cut_gives_the_same_bits() {
    const std::int64_t count = 10007, first = 3;
    const NoiseKey key{42, 1, 2};
    std::vector<float> whole(first + count);
    x2ct::normal(whole.data(), 0, first + count, key);
    for (const std::int64_t piece : {1, 5, 64, 255, 256, 257, 4099}) {
        std::vector<float> cut(count);
        for (std::int64_t at = 0; at < count; at += piece) {
            x2ct::normal(cut.data() + at, first + at, std::min(piece, count - at), key);
        }
        CHECK(std::memcmp(cut.data(), whole.data() + first, count * sizeof(float)) == 0);
    }
    for (const int threads : {1, 2, 3, 7}) {
        std::vector<float> cut(count);
        x2ct::parallel_for(count, 100, 1, threads, [&](std::int64_t begin, std::int64_t end) {
            x2ct::normal(cut.data() + begin, first + begin, end - begin, key);
        });
        CHECK(std::memcmp(cut.data(), whole.data() + first, count * sizeof(float)) == 0);
    }
}

void far_voxels_have_their_own_noise() {
    const std::int64_t far = std::int64_t{1} << 35;  // past 32 bits of block index
    float near[4], beyond[4];
    x2ct::normal(near, 0, 4, {5, 0, 0});
    x2ct::normal(beyond, far, 4, {5, 0, 0});
    CHECK(std::memcmp(near, beyond, sizeof near) != 0);
}

void moments() {
    std::vector<float> noise(1 << 20);
    x2ct::normal(noise.data(), 0, static_cast<std::int64_t>(noise.size()), {2024, 0, 0});
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, beyond3 = 0;
    for (const double n : noise) {
        m1 += n, m2 += n * n, m3 += n * n * n, m4 += n * n * n * n;
        beyond3 += std::abs(n) > 3;
    }
    const double count = static_cast<double>(noise.size());  // tolerances: four standard errors
    CHECK_CLOSE(m1 / count, 0, 4 / 1024.0);
    CHECK_CLOSE(m2 / count, 1, 4 * 1.414 / 1024.0);
    CHECK_CLOSE(m3 / count, 0, 4 * 3.873 / 1024.0);
    CHECK_CLOSE(m4 / count, 3, 4 * 9.798 / 1024.0);
    CHECK_CLOSE(beyond3 / count, 0.0026998, 4 * 0.0519 / 1024.0);
}

void draws_samples_and_seeds_are_independent() {
    constexpr int kCount = 1 << 16;
    std::vector<float> first(kCount), second(kCount);
    x2ct::normal(first.data(), 0, kCount, {1, 0, 0});
    for (const NoiseKey key :
         {NoiseKey{2, 0, 0}, NoiseKey{1, 1, 0}, NoiseKey{1, 0, 1}, NoiseKey{(1ull << 32) + 1, 0, 0}}) {
        x2ct::normal(second.data(), 0, kCount, key);
        double product = 0;
        for (int i = 0; i < kCount; ++i) product += double{first[i]} * second[i];
        CHECK_CLOSE(product / kCount, 0, 4 / 256.0);
    }
}

}  // namespace

TESTS(known_answers, transform, any_cut_gives_the_same_bits, far_voxels_have_their_own_noise, moments,
      draws_samples_and_seeds_are_independent)
