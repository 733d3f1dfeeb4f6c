// Volumes in tiles: how a grid is cut, and what fits into a memory budget.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "x2ct/device.h"
#include "x2ct/network.h"

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
    double encoder = 0;      ///< scratch memory of an encoding in all, let go of when it ends
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

// Plans: what a backend builds from a network for one kind of device, ahead of loading it.

/// The shapes of an input that a plan is for; all three are equal where there is but one.
struct ShapeRange {
    Shape least;
    Shape usual;  ///< what kernels are chosen for
    Shape largest;
};

struct PlanOptions {
    std::string path;    ///< the .onnx file; its types are those that the plan computes in
    std::string output;  ///< the plan
    std::string device = "cuda";
    /// What the graph is typed in: "f32", "tf32", "bf16" or "f16"; the plan remembers it.
    std::string precision = "f32";
    std::map<std::string, ShapeRange> profile;  ///< of every input
    std::int64_t workspace_bytes = 0;           ///< the most that a kernel may use beside its tensors; 0: all there is
    int effort = 3;                             ///< 0 to 5: how long kernels are compared
    std::string timing_cache = {};              ///< a file of kernels' timings, read if it is there and written; or ""
    /// Called with a phase's name, steps done, and of how many; from any thread. False ends the build with Cancelled;
    /// so does what it throws, which comes out.
    std::function<bool(const std::string& phase, int step, int steps)> progress = {};
};

}  // namespace x2ct
