#include "core/measured_view.h"

#include <algorithm>
#include <cmath>

#include "core/index_view.h"
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

}  // namespace x2ct
