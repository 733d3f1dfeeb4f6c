// What surrounds the networks: the coordinates that the lift is given, and the HU that the result is handed out in.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/pull.h"

namespace x2ct::kernels {

/// The coordinates [3, X, Y, Z] of a tile's voxels: patient mm over `unit_mm`, made in double precision.
struct Coordinates {
    std::int64_t tile[3];
    std::int64_t origin[3];  ///< of the tile in its grid
    double middle[3];        ///< the grid's centre, in voxels
    double spacing_mm[3];
    double unit_mm;
    float* to;

    X2CT_BOTH std::int64_t count() const { return 3 * tile[0] * tile[1] * tile[2]; }
    X2CT_BOTH std::int64_t line() const { return tile[2]; }
    X2CT_BOTH std::int64_t cost() const { return 1; }

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        const std::int64_t line = begin / tile[2], first = line * tile[2];
        const std::int64_t x = line / tile[1] % tile[0], y = line % tile[1];
        const int axis = static_cast<int>(line / (tile[0] * tile[1]));
        for (std::int64_t i = begin; i < end; ++i) to[i] = at(axis, axis == 0 ? x : axis == 1 ? y : i - first);
    }

    X2CT_BOTH float at(int axis, std::int64_t voxel) const {
        const double from_centre = static_cast<double>(origin[axis] + voxel) - middle[axis];
        return static_cast<float>(from_centre * spacing_mm[axis] / unit_mm);
    }
};

/// x to HU, clipped to the window, with the bits of Intensity::to_hu; NaN stays, so that it shows.
struct ToHu : KnotMap {
    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        for (std::int64_t i = begin; i < end; ++i) to[i] = from[i] == from[i] ? mapped(from[i]) : from[i];
    }
};

// A box of voxels copied from one grid to another: cutting tiles and joining them.

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
