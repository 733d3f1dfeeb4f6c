// A box of voxels copied from one grid to another: cutting tiles and joining them.
#pragma once

#include <cstdint>

#include "kernels/both.h"

namespace x2ct::kernels {

/// A BoxCopy (include/x2ct/device.h) as devices keep it, in pieces of `width` voxels along z.
struct BoxProgram {
    const float* from;
    float* to;
    std::int64_t from_grid[3], from_origin[3], to_grid[3], to_origin[3], extent[3];
    std::int64_t channels;
    int width;  ///< 4 where every line begins and ends at a multiple of four voxels, else 1
};

X2CT_BOTH std::int64_t pieces(const BoxProgram& box) {
    return box.channels * box.extent[0] * box.extent[1] * (box.extent[2] / box.width);
}

X2CT_BOTH std::int64_t offset_of(const std::int64_t grid[3], const std::int64_t origin[3], std::int64_t channel,
                                 std::int64_t x, std::int64_t y, std::int64_t z) {
    return ((channel * grid[0] + origin[0] + x) * grid[1] + origin[1] + y) * grid[2] + origin[2] + z;
}

X2CT_BOTH void copy_piece(const BoxProgram& box, std::int64_t piece) {
    const std::int64_t along = box.extent[2] / box.width;
    const std::int64_t z = piece % along * box.width;
    const std::int64_t line = piece / along;
    const std::int64_t y = line % box.extent[1];
    const std::int64_t x = line / box.extent[1] % box.extent[0];
    const std::int64_t channel = line / (box.extent[0] * box.extent[1]);
    const float* const from = box.from + offset_of(box.from_grid, box.from_origin, channel, x, y, z);
    float* const to = box.to + offset_of(box.to_grid, box.to_origin, channel, x, y, z);
#if defined(__CUDA_ARCH__)
    if (box.width == 4) {
        *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
        return;
    }
#endif
    for (int i = 0; i < box.width; ++i) to[i] = from[i];
}

}  // namespace x2ct::kernels
