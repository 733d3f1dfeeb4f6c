#include "x2ct/tiling.h"

#include <algorithm>
#include <limits>
#include <string>

#include "x2ct/error.h"

namespace x2ct {
namespace {

std::string text(const Index& index) {
    return std::to_string(index[0]) + " x " + std::to_string(index[1]) + " x " + std::to_string(index[2]);
}

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

double voxels(const Index& index) {
    return static_cast<double>(index[0]) * static_cast<double>(index[1]) * static_cast<double>(index[2]);
}

// One axis of a cut: [begin, end) of an input and of the output inside it.
struct Span {
    std::int64_t in, out, end;
};

// The last tile of n would end `slack` behind the grid; it is moved back, and the seams before it may be anywhere
// there.
std::vector<Span> spans(std::int64_t grid, std::int64_t tile, std::int64_t halo, std::int64_t stride, int row) {
    if (tile == grid) return {{0, 0, grid}};
    const std::int64_t pitch = tile - 2 * halo;
    const std::int64_t count = (grid - 2 * halo + pitch - 1) / pitch;
    const std::int64_t slack = count * pitch + 2 * halo - grid;
    const std::int64_t shift = stride * (row % (slack / stride + 1));
    std::vector<Span> found;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t begin = i == 0 ? 0 : halo + i * pitch - shift;
        const std::int64_t end = i + 1 == count ? grid : halo + (i + 1) * pitch - shift;
        found.push_back({std::clamp<std::int64_t>(i * pitch - shift, 0, grid - tile), begin, end});
    }
    return found;
}

// The smallest tile by which `count` of them cover the axis.
std::int64_t tile_of(std::int64_t grid, std::int64_t count, std::int64_t halo, std::int64_t stride) {
    if (count == 1) return grid;
    return round_up((grid - 2 * halo + count - 1) / count, stride) + 2 * halo;
}

// The different tile sizes along an axis, from the whole downwards.
std::vector<std::int64_t> sizes(std::int64_t grid, std::int64_t halo, std::int64_t stride) {
    std::vector<std::int64_t> found = {grid};
    for (std::int64_t count = 2; count <= grid / stride; ++count) {
        const std::int64_t tile = tile_of(grid, count, halo, stride);
        if (tile < found.back() && tile > 2 * halo) found.push_back(tile);
    }
    return found;
}

double evaluated(const Tiling& tiling) { return voxels(tiling.count()) * voxels(tiling.tile); }

// The most bytes that there are at once. What a runtime holds is its scratch memory and inputs of its own, from its
// first evaluation until it is let go of; beside it there are those that are bound to it. The encoder's is let go of
// before a run takes its registers.
double bytes_of(const Tiling& tiling, const Tiling& lift, bool keep, bool in_turn, const MemoryNeeds& needs) {
    constexpr double kValue = sizeof(float);
    const bool whole = tiling.tile == tiling.grid;  // then x, D and conditions are the volumes themselves
    const double bound = whole ? 0 : 2 * kValue + needs.conditions;
    const double denoiser = voxels(tiling.tile) * (needs.denoiser + kValue + needs.conditions + bound);
    // Coordinates are made, bound and held.
    const double lifting = voxels(lift.tile) * (needs.lift + 3 * 3 * kValue + needs.conditions);
    const double registers = voxels(tiling.grid) * needs.grid;
    const double always = static_cast<double>(needs.fixed) + (keep ? voxels(tiling.grid) * needs.conditions : 0);
    return always + (in_turn ? std::max({needs.encoder, lifting, registers + denoiser})
                             : lifting + denoiser + std::max(needs.encoder, registers));
}

}  // namespace

void Tiling::check() const {
    const auto fail = [](const std::string& field, const std::string& found, const std::string& expected) {
        throw InputError("tiles: " + field + ": found " + found + ", expected " + expected);
    };
    if (stride < 1) fail("stride", std::to_string(stride), "1 or more");
    if (halo < 0 || halo % stride != 0) {
        fail("halo", std::to_string(halo), "a multiple of the network's stride " + std::to_string(stride));
    }
    for (std::size_t axis = 0; axis < 3; ++axis) {
        const std::int64_t n = grid[axis], t = tile[axis];
        if (n < 1 || n % stride != 0) fail("grid", text(grid), "multiples of the stride " + std::to_string(stride));
        const bool fits = t == n || (t > 2 * halo && t < n && t % stride == 0);
        if (!fits) {
            fail("tile", text(tile),
                 "the grid's own size, or less of it in multiples of " + std::to_string(stride) +
                     " and more than two halos of " + std::to_string(halo));
        }
    }
}

Index Tiling::count() const {
    Index found{};
    for (std::size_t axis = 0; axis < 3; ++axis) {
        found[axis] = static_cast<std::int64_t>(spans(grid[axis], tile[axis], halo, stride, 0).size());
    }
    return found;
}

std::vector<Tile> Tiling::tiles(int row) const {
    std::array<std::vector<Span>, 3> axes;
    for (std::size_t axis = 0; axis < 3; ++axis) axes[axis] = spans(grid[axis], tile[axis], halo, stride, row);
    std::vector<Tile> found;
    for (const Span& x : axes[0]) {
        for (const Span& y : axes[1]) {
            for (const Span& z : axes[2]) {
                found.push_back({{{x.in, y.in, z.in}, tile},
                                 {{x.out, y.out, z.out}, {x.end - x.out, y.end - y.out, z.end - z.out}}});
            }
        }
    }
    return found;
}

TilePlan plan_tiles(const Index& grid, std::int64_t stride, std::int64_t halo, std::int64_t lift_halo,
                    const MemoryNeeds& needs, std::int64_t budget) {
    Tiling tiling{grid, grid, round_up(std::max<std::int64_t>(halo, 0), stride), stride};
    tiling.check();
    Tiling lift{grid, grid, round_up(std::max<std::int64_t>(lift_halo, 0), stride), stride};
    std::array<std::vector<std::int64_t>, 3> axes;
    for (std::size_t axis = 0; axis < 3; ++axis) axes[axis] = sizes(grid[axis], tiling.halo, stride);

    TilePlan best;
    double least_work = std::numeric_limits<double>::infinity(), least_bytes = least_work;
    const auto consider = [&](bool keep, bool in_turn) {
        const double bytes = bytes_of(tiling, lift, keep, in_turn, needs);
        // Scratch memory stands for work: an evaluation that keeps less does less. A lift that is kept runs once.
        const double work =
            evaluated(tiling) * needs.denoiser + (keep ? 0 : voxels(tiling.count()) * voxels(lift.tile) * needs.lift);
        least_bytes = std::min(least_bytes, bytes);
        if (bytes > static_cast<double>(budget) || work >= least_work) return;
        least_work = work;
        best = {tiling, lift, keep, in_turn, static_cast<std::int64_t>(bytes)};
    };
    for (const std::int64_t x : axes[0]) {
        for (const std::int64_t y : axes[1]) {
            for (const std::int64_t z : axes[2]) {
                tiling.tile = {x, y, z};
                for (std::size_t axis = 0; axis < 3; ++axis) {
                    const std::int64_t wanted = tiling.tile[axis] + 2 * lift.halo;
                    lift.tile[axis] = lift_halo < 0 ? grid[axis] : std::min(grid[axis], wanted);
                }
                consider(true, false);
                consider(true, true);  // the same work, in less memory
                if (lift_halo >= 0 && tiling.tile != grid) consider(false, false);
            }
        }
    }
    if (best.bytes == 0) {
        const auto mib = [](double bytes) { return std::to_string(static_cast<std::int64_t>(bytes / (1 << 20))); };
        throw OutOfMemory("memory: found " + mib(static_cast<double>(budget)) + " MiB, expected at least " +
                          mib(least_bytes + (1 << 20)) + " MiB for a grid of " + text(grid) +
                          "; a smaller grid or halo takes less");
    }
    return best;
}

}  // namespace x2ct
