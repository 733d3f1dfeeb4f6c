// Noise that depends on nothing but its address: the same seed gives the same bits on every device, for every tile
// shape, batch and number of threads.
#pragma once

#include <array>
#include <cstdint>

namespace x2ct {

/// Which noise: the key is the seed, the counter is (voxel, draw, sample).
struct NoiseKey {
    std::uint64_t seed = 0;
    std::uint32_t draw = 0;
    std::uint32_t sample = 0;
};

/// Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// Standard normals of the voxels first .. first + count - 1 (linear index into the whole grid, z fastest).
///
/// One Philox block serves the four voxels 4k .. 4k+3: its counter is (k low, k high, draw, sample), its key (seed low,
/// seed high). Its four words make two pairs by Box and Muller's transform, with a logarithm, sine and cosine of our
/// own from additions, products, quotients, square roots and fma on float. IEEE 754 rounds each of them exactly, so
/// that compilers and devices can't differ. |n| <= 6.67.
void normal(float* out, std::int64_t first, std::int64_t count, const NoiseKey& key);

}  // namespace x2ct
