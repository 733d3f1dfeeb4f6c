// Volumes in tiles: how a grid is cut, and what fits into a memory budget.
#pragma once

#include <cstdint>
#include <vector>

#include "x2ct/device.h"

namespace x2ct {

struct Box {
    Index origin{};
    Index extent{};
};

/// One evaluation: what goes in, and the part of what comes out that is used. Outputs of a cut cover the grid once.
struct Tile {
    Box input;
    Box output;
};

/// A grid cut into tiles of one shape. A tile never leaves the grid: at the grid's edge it ends there, so that the
/// network meets the edge as it does in the whole volume; everywhere else its output lies `halo` inside its input.
struct Tiling {
    Index grid{};
    Index tile{};
    std::int64_t halo = 0;
    std::int64_t stride = 1;  ///< of the network: origins and extents are multiples of it

    /// Throws InputError unless grid, tile and halo are multiples of the stride, and a tile is more than its halos.
    void check() const;

    /// Tiles along the axes; it does not depend on the row.
    Index count() const;

    /// The cut of a table's row. From row to row the seams move by the stride, over what the tiles overlap more than
    /// their halos ask for: an error at a seam does not gather in one place.
    std::vector<Tile> tiles(int row) const;
};

/// What sampling takes, in bytes for each voxel of the grid or of a tile.
struct MemoryNeeds {
    std::int64_t fixed = 0;  ///< runtime, weights, features
    double grid = 0;         ///< registers
    double conditions = 0;   ///< of the whole volume, if they are kept, and of a tile
    double denoiser = 0;     ///< scratch memory of an evaluation
    double lift = 0;         ///< the same of the lift
};

struct TilePlan {
    Tiling denoiser;
    Tiling lift;
    /// Lift once and cut what it made; otherwise lift each tile at each evaluation.
    bool keep = true;
    /// Lift and denoiser don't fit side by side: each is let go of before the other runs. Only where `keep`.
    bool in_turn = false;
    std::int64_t bytes = 0;  ///< what it takes, by the needs given

    bool whole() const { return denoiser.tile == denoiser.grid; }
};

/// The least work that fits into `budget` bytes: the whole volume where it does, else tiles.
///
/// `halo` is the denoiser's and `lift_halo` the lift's, in voxels, and are rounded up to the stride; with their
/// receptive radii tiles give what the whole gives, to rounding. A `lift_halo` below 0 is unknown: the lift then runs
/// on the whole volume. Throws OutOfMemory if nothing fits, InputError for a grid that is no multiple of the stride.
TilePlan plan_tiles(const Index& grid, std::int64_t stride, std::int64_t halo, std::int64_t lift_halo,
                    const MemoryNeeds& needs, std::int64_t budget);

}  // namespace x2ct
