// An X-ray on its way to consistency.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "x2ct/consistency.h"
#include "x2ct/projector.h"

namespace x2ct {

/// Averages blocks of pixels until a pixel is about as large as a voxel looks from the grid's centre; a block counts as
/// measured if all of it is. Blocks begin so that their centres see voxels' centres where that can be had.
MeasuredView averaged(const VolumeGrid& grid, const MeasuredView& measured);

/// Throws InputError unless sizes match, values are finite and the view sees the grid's centre.
void check(const VolumeGrid& grid, const MeasuredView& measured);

// A view in voxel indices: P composed with the grid's affine.

struct IndexView {
    std::array<std::array<double, 4>, 3> m{};
    std::array<double, 3> centre{};  ///< of the grid

    IndexView(const VolumeGrid& grid, const DetectorView& view) {
        for (int row = 0; row < 3; ++row) {
            for (int col = 0; col < 4; ++col) {
                for (int k = 0; k < 4; ++k) m[row][col] += view.matrix[4 * row + k] * grid.index_to_mm[4 * k + col];
            }
            centre[row] = 0.5 * static_cast<double>(grid.shape[row] - 1);
        }
    }

    /// The column u, the row v, and w of a voxel index.
    std::array<double, 3> at(const std::array<double, 3>& index) const {
        std::array<double, 3> seen{};
        for (int row = 0; row < 3; ++row) {
            seen[row] = m[row][0] * index[0] + m[row][1] * index[1] + m[row][2] * index[2] + m[row][3];
        }
        return {seen[0] / seen[2], seen[1] / seen[2], seen[2]};
    }

    /// How many columns and rows a voxel at the grid's centre spans.
    std::array<double, 2> span() const {
        const auto seen = at(centre);
        std::array<double, 2> most{};
        for (int axis = 0; axis < 3; ++axis) {
            for (int k = 0; k < 2; ++k) {
                most[k] = std::max(most[k], std::abs((m[k][axis] - seen[k] * m[2][axis]) / seen[2]));
            }
        }
        return most;
    }
};

}  // namespace x2ct
