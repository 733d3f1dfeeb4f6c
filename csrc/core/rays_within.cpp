#include <algorithm>
#include <cmath>
#include <limits>

#include "core/measured_view.h"
#include "core/parallel.h"
#include "x2ct/consistency.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

// How the pixels of one detector axis become blocks.
struct Blocks {
    std::int64_t size, start, count;

    // `extent` pixels, of which a voxel spans `span`; the voxels' centres are at `phase` plus multiples of the span.
    Blocks(std::int64_t extent, double span, double phase) {
        size = std::clamp<std::int64_t>(std::llround(span), 1, extent);
        const double shift = phase - 0.5 * static_cast<double>(size - 1);
        start = std::llround(shift - std::floor(shift / static_cast<double>(size)) * static_cast<double>(size)) % size;
        count = (extent - start) / size;
        if (count == 0) start = 0, count = 1;
    }

    double middle() const { return static_cast<double>(start) + 0.5 * static_cast<double>(size - 1); }
};

}  // namespace

void check(const VolumeGrid& grid, const MeasuredView& measured) {
    const std::string what = "consistency: " + measured.name + ": ";
    const DetectorView& view = measured.view;
    if (view.rows < 1 || view.cols < 1) throw InputError(what + "found an empty detector, expected rows and columns");
    const auto pixels = static_cast<std::size_t>(view.rows * view.cols);
    if (measured.image.size() != pixels || measured.measured.size() != pixels) {
        throw InputError(what + "found " + std::to_string(measured.image.size()) + " values, expected " +
                         std::to_string(pixels) + ", one a pixel");
    }
    if (!std::ranges::all_of(measured.image, [](float value) { return std::isfinite(value); })) {
        throw InputError(what + "found NaN or infinity, expected finite line integrals");
    }
    const IndexView seen(grid, view);
    if (!(seen.at(seen.centre)[2] > 0)) {
        throw InputError(what + "found the grid's centre behind the source, expected it in front");
    }
}

MeasuredView averaged(const VolumeGrid& grid, const MeasuredView& measured) {
    const DetectorView& view = measured.view;
    const IndexView seen(grid, view);
    const auto span = seen.span();
    const auto phase = seen.at({0, 0, 0});
    const Blocks across(view.cols, span[0], phase[0]), down(view.rows, span[1], phase[1]);

    MeasuredView result{measured.name, view, {}, {}, measured.calibrated};
    result.view.rows = down.count;
    result.view.cols = across.count;
    // block = (pixel - middle) / size, for both pixel coordinates; in homogeneous form a combination of P's rows
    for (int col = 0; col < 4; ++col) {
        auto& m = result.view.matrix;
        m[col] = (m[col] - across.middle() * m[8 + col]) / static_cast<double>(across.size);
        m[4 + col] = (m[4 + col] - down.middle() * m[8 + col]) / static_cast<double>(down.size);
    }
    for (std::int64_t row = 0; row < down.count; ++row) {
        for (std::int64_t col = 0; col < across.count; ++col) {
            double sum = 0;
            bool whole = true;
            for (std::int64_t v = down.start + row * down.size; v < down.start + (row + 1) * down.size; ++v) {
                for (std::int64_t u = across.start + col * across.size; u < across.start + (col + 1) * across.size;
                     ++u) {
                    sum += measured.image[v * view.cols + u];
                    whole = whole && measured.measured[v * view.cols + u] != 0;
                }
            }
            result.image.push_back(static_cast<float>(sum / static_cast<double>(down.size * across.size)));
            result.measured.push_back(whole ? 1 : 0);
        }
    }
    return result;
}

// Which rays can be taken to lie in the grid as far as they meet the body. The body is larger than the grid, nothing
// but the X-rays says by how much, and what they say is their silhouettes.
namespace {

constexpr double kReachMm = 300;  // from the grid's centre: no body that fits a scanner goes further
constexpr double kCellMm = 5;

// The grid and what surrounds it, in coarse cells; the grid's faces are faces of cells.
struct Region {
    VolumeGrid cells;
    std::array<std::int64_t, 3> begin{}, end{};  // of the cells in the grid

    explicit Region(const VolumeGrid& grid) : cells(grid) {
        for (int axis = 0; axis < 3; ++axis) {
            auto& m = cells.index_to_mm;
            const double voxel = std::hypot(m[axis], m[4 + axis], m[8 + axis]);
            const double extent = voxel * static_cast<double>(grid.shape[axis]);
            const std::int64_t within = std::max<std::int64_t>(1, std::llround(extent / kCellMm));
            const double cell = extent / static_cast<double>(within);
            const auto margin = std::max<std::int64_t>(1, std::llround((kReachMm - 0.5 * extent) / cell));
            begin[axis] = margin;
            end[axis] = margin + within;
            cells.shape[axis] = within + 2 * margin;
            // cell i is centred at voxel (i - margin + 1/2) voxels_a_cell - 1/2
            const double voxels = cell / voxel;
            const double first = (0.5 - static_cast<double>(margin)) * voxels - 0.5;
            for (int row = 0; row < 3; ++row) {
                m[4 * row + 3] += m[4 * row + axis] * first;
                m[4 * row + axis] *= voxels;
            }
        }
    }

    std::int64_t count() const { return cells.shape[0] * cells.shape[1] * cells.shape[2]; }

    bool in_grid(std::int64_t x, std::int64_t y, std::int64_t z) const {
        return x >= begin[0] && x < end[0] && y >= begin[1] && y < end[1] && z >= begin[2] && z < end[2];
    }
};

// The rows and columns of a detector that measured something.
struct Field {
    std::int64_t top, bottom, left, right;  // the last included; empty if bottom < top

    explicit Field(const MeasuredView& view) : top(view.view.rows), bottom(-1), left(view.view.cols), right(-1) {
        for (std::int64_t v = 0; v < view.view.rows; ++v) {
            for (std::int64_t u = 0; u < view.view.cols; ++u) {
                if (view.measured[v * view.view.cols + u] == 0) continue;
                top = std::min(top, v), bottom = std::max(bottom, v);
                left = std::min(left, u), right = std::max(right, u);
            }
        }
    }
};

// What one view says of each cell: the pixel that sees it, the nearest measured one if it has none of its own.
class Silhouette {
  public:
    Silhouette(const Region& region, const MeasuredView& view)
        : field_(view), seen_(region.cells, view.view), cols_(view.view.cols), image_(view.image) {
        widen(view.view.rows);
    }

    // -1 where nothing can be said: behind the source, or a view that measured nothing.
    std::int64_t pixel(const std::array<double, 3>& cell) const {
        const auto seen = seen_.at(cell);
        if (!(seen[2] > 0) || field_.bottom < field_.top) return -1;
        const auto near = [](double at, std::int64_t low, std::int64_t high) {
            return std::llround(std::clamp(at, static_cast<double>(low), static_cast<double>(high)));
        };
        return near(seen[1], field_.top, field_.bottom) * cols_ + near(seen[0], field_.left, field_.right);
    }

    float value(std::int64_t pixel) const { return image_[pixel]; }

  private:
    // The largest value among the pixels that a cell may cover.
    void widen(std::int64_t rows) {
        const auto span = seen_.span();
        const std::int64_t reach = std::llround(0.5 * std::max(span[0], span[1]));
        const std::vector<float> given = image_;
        for (std::int64_t v = 0; v < rows; ++v) {
            for (std::int64_t u = 0; u < cols_; ++u) {
                float& most = image_[v * cols_ + u];
                for (std::int64_t y = std::max<std::int64_t>(0, v - reach); y <= std::min(rows - 1, v + reach); ++y) {
                    for (std::int64_t x = std::max<std::int64_t>(0, u - reach); x <= std::min(cols_ - 1, u + reach);
                         ++x) {
                        most = std::max(most, given[y * cols_ + x]);
                    }
                }
            }
        }
    }

    Field field_;
    IndexView seen_;
    std::int64_t cols_;
    std::vector<float> image_;
};

template <typename Visit>
void for_each_cell(const Region& region, int threads, const Visit& visit) {
    const auto [nx, ny, nz] = region.cells.shape;
    parallel_for(nx, 1, 1, threads, [&, ny = ny, nz = nz](std::int64_t begin, std::int64_t end) {
        for (std::int64_t x = begin; x < end; ++x) {
            for (std::int64_t y = 0; y < ny; ++y) {
                for (std::int64_t z = 0; z < nz; ++z) visit(x, y, z, (x * ny + y) * nz + z);
            }
        }
    });
}

std::array<double, 3> centre(std::int64_t x, std::int64_t y, std::int64_t z) {
    return {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)};
}

}  // namespace

std::vector<std::vector<std::uint8_t>> rays_within(const VolumeGrid& grid, const std::vector<MeasuredView>& views,
                                                   int threads) {
    const Region region(grid);
    std::vector<Silhouette> silhouettes;
    silhouettes.reserve(views.size());
    for (const MeasuredView& view : views) silhouettes.emplace_back(region, view);

    std::vector<float> volume(static_cast<std::size_t>(region.count()));
    for_each_cell(region, threads, [&](std::int64_t x, std::int64_t y, std::int64_t z, std::int64_t cell) {
        volume[cell] = std::ranges::all_of(silhouettes, [&](const Silhouette& view) {
            const std::int64_t pixel = view.pixel(centre(x, y, z));
            return pixel < 0 || view.value(pixel) > kAirIntegral;
        });
    });
    std::vector<std::vector<float>> lengths;  // of each ray in the hull, mm
    for (const MeasuredView& view : views) {
        lengths.emplace_back(view.image.size());
        project(volume.data(), region.cells, view.view, lengths.back().data(), threads);
    }
    for_each_cell(region, threads, [&](std::int64_t x, std::int64_t y, std::int64_t z, std::int64_t cell) {
        if (volume[cell] == 0) return;
        float least = std::numeric_limits<float>::infinity();
        for (std::size_t k = 0; k < views.size(); ++k) {
            const std::int64_t pixel = silhouettes[k].pixel(centre(x, y, z));
            if (pixel < 0 || !(lengths[k][pixel] > 0)) continue;
            least = std::min(least, silhouettes[k].value(pixel) / lengths[k][pixel]);
        }
        // what no view says anything about may be body
        volume[cell] = region.in_grid(x, y, z) ? 0.0F : std::min(least, static_cast<float>(kWaterPerMm));
    });
    std::vector<std::vector<std::uint8_t>> within;
    for (const MeasuredView& view : views) {
        std::vector<float> outside(view.image.size());
        project(volume.data(), region.cells, view.view, outside.data(), threads);
        within.emplace_back(outside.size());
        for (std::size_t pixel = 0; pixel < outside.size(); ++pixel) {
            within.back()[pixel] = outside[pixel] <= kAirIntegral && view.measured[pixel] != 0;
        }
    }
    return within;
}

}  // namespace x2ct
