// What surrounds the networks: the coordinates that the lift is given, and the HU that the result is handed out in.
#pragma once

#include <cstdint>

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

}  // namespace x2ct::kernels
