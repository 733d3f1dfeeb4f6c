// Parallel rays along the grid's axes, one through the centres of each line of voxels: sums, and a closed form.
//
// A ray along axis p meets n_p voxels for h_p mm each, so that A_p A_p^T = h_p^2 n_p. Two rays along p and q cross in
// one voxel if they lie in the same slice of the third axis t, and never otherwise: A_p A_q^T = h_p h_q in each slice.
// Every slice of (e + A A^T) l = r is then
//
//     a l_i + c sum_j k_j = r_i,     b k_j + c sum_i l_i = s_j,     a = e + h_p^2 n_p,  b = e + h_q^2 n_q,  c = h_p
//     h_q,
//
// over the rays i and j that count, and the two sums solve a 2 x 2 system.
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "core/index_view.h"
#include "core/parallel.h"
#include "core/ray_operator.h"

namespace x2ct {
namespace {

constexpr double kSamePixel = 1e-3;  // of a pixel, at any voxel

constexpr std::array<std::array<int, 2>, 3> kOthers = {{{1, 2}, {0, 2}, {0, 1}}};

// One view: the axis its rays follow, the two others, and the length of a voxel along it.
struct Bundle {
    int axis;
    int b, c;
    double mm;
    std::vector<std::int64_t> pixels;  // [size_b, size_c]; -1 off the detector
};

double length(const VolumeGrid& grid, int axis) {
    const auto& m = grid.index_to_mm;
    return std::hypot(m[axis], m[4 + axis], m[8 + axis]);
}

bool is_near(double value, double wanted, std::int64_t times) {
    return std::abs(value - wanted) * static_cast<double>(times) < kSamePixel;
}

std::optional<Bundle> bundle_of(const VolumeGrid& grid, const DetectorView& view) {
    const IndexView seen(grid, view);
    const double w = seen.m[2][3];
    for (int axis = 0; axis < 3; ++axis) {
        if (!is_near(seen.m[2][axis] / w, 0, grid.shape[axis] * std::max(view.rows, view.cols))) return std::nullopt;
    }
    for (int axis = 0; axis < 3; ++axis) {
        for (const bool swapped : {false, true}) {
            const int b = kOthers[axis][swapped ? 1 : 0], c = kOthers[axis][swapped ? 0 : 1];
            // the columns run along b, the rows along c
            const auto fits = [&](int row, int along, int across) {
                const auto& m = seen.m[row];
                return is_near(m[axis] / w, 0, grid.shape[axis]) && is_near(m[across] / w, 0, grid.shape[across]) &&
                       is_near(std::abs(m[along] / w), 1, grid.shape[along]) &&
                       is_near(m[3] / w, std::round(m[3] / w), 1);
            };
            if (!fits(0, b, c) || !fits(1, c, b)) continue;
            Bundle found{axis, kOthers[axis][0], kOthers[axis][1], length(grid, axis), {}};
            std::array<double, 3> index{};
            for (std::int64_t i = 0; i < grid.shape[found.b]; ++i) {
                for (std::int64_t j = 0; j < grid.shape[found.c]; ++j) {
                    index[found.b] = static_cast<double>(i);
                    index[found.c] = static_cast<double>(j);
                    const auto pixel = seen.at(index);
                    const auto u = std::llround(pixel[0]), v = std::llround(pixel[1]);
                    const bool inside = u >= 0 && u < view.cols && v >= 0 && v < view.rows;
                    found.pixels.push_back(inside ? v * view.cols + u : -1);
                }
            }
            return found;
        }
    }
    return std::nullopt;
}

class AlignedRays : public RayOperator {
  public:
    AlignedRays(const VolumeGrid& grid, std::vector<Bundle> bundles, int threads)
        : shape_(grid.shape), bundles_(std::move(bundles)), threads_(threads) {
        for (const Bundle& bundle : bundles_) add_view(bundle.pixels);
        third_ = bundles_.size() == 2 ? 3 - bundles_[0].axis - bundles_[1].axis : bundles_[0].b;
    }

    void forward(const float* volume, float* rays) const override {
        for (std::size_t view = 0; view < bundles_.size(); ++view) {
            const Bundle& bundle = bundles_[view];
            float* const to = rays + first()[view];
            const float* const counts = this->counts().data() + first()[view];
            const std::int64_t lines = shape_[bundle.b], length = shape_[bundle.c], depth = shape_[bundle.axis];
            parallel_for(lines, 1, 1, threads_, [&](std::int64_t begin, std::int64_t end) {
                std::vector<double> sums(static_cast<std::size_t>(length));
                for (std::int64_t b = begin; b < end; ++b) {
                    std::fill(sums.begin(), sums.end(), 0.0);
                    for (std::int64_t a = 0; a < depth; ++a) add(volume, bundle, a, b, sums);
                    for (std::int64_t c = 0; c < length; ++c) {
                        to[b * length + c] = static_cast<float>(sums[c] * bundle.mm) * counts[b * length + c];
                    }
                }
            });
        }
    }

    void backward(const float* rays, float* volume) const override {
        const auto [nx, ny, nz] = shape_;
        parallel_for(nx, 1, 1, threads_, [&, ny = ny, nz = nz](std::int64_t begin, std::int64_t end) {
            for (std::int64_t x = begin; x < end; ++x) {
                for (std::int64_t y = 0; y < ny; ++y) {
                    float* const to = volume + (x * ny + y) * nz;
                    std::fill_n(to, nz, 0.0F);
                    for (std::size_t view = 0; view < bundles_.size(); ++view) {
                        const auto mm = static_cast<float>(bundles_[view].mm);
                        const float* const from = rays + first()[view];
                        if (bundles_[view].axis == 2) {
                            const float value = mm * from[x * ny + y];
                            for (std::int64_t z = 0; z < nz; ++z) to[z] += value;
                        } else {
                            const float* const row = from + (bundles_[view].axis == 0 ? y : x) * nz;
                            for (std::int64_t z = 0; z < nz; ++z) to[z] += mm * row[z];
                        }
                    }
                }
            }
        });
    }

    void solve(double e, const float* residual, float* step, float*) const override {
        std::fill_n(step, rays(), 0.0F);
        for (std::int64_t slice = 0; slice < shape_[third_]; ++slice) solve_slice(e, residual, step, slice);
    }

    bool is_closed_form() const override { return true; }

  private:
    // sums[c] += volume at (a, b, c) of the bundle's axes.
    void add(const float* volume, const Bundle& bundle, std::int64_t a, std::int64_t b,
             std::vector<double>& sums) const {
        const std::array<std::int64_t, 3> strides = {shape_[1] * shape_[2], shape_[2], 1};
        const float* const from = volume + a * strides[bundle.axis] + b * strides[bundle.b];
        const std::int64_t stride = strides[bundle.c];
        for (std::size_t c = 0; c < sums.size(); ++c) sums[c] += from[static_cast<std::int64_t>(c) * stride];
    }

    // Calls visit(ray) for the rays of a view in a slice of the third axis that count.
    template <typename Visit>
    void for_slice(std::size_t view, std::int64_t slice, const Visit& visit) const {
        const Bundle& bundle = bundles_[view];
        const std::int64_t columns = shape_[bundle.c];
        const bool slow = bundle.b == third_;
        const std::int64_t count = slow ? columns : shape_[bundle.b];
        for (std::int64_t i = 0; i < count; ++i) {
            const auto ray = first()[view] + static_cast<std::size_t>(slow ? slice * columns + i : i * columns + slice);
            if (counts()[ray] != 0.0F) visit(ray);
        }
    }

    void solve_slice(double e, const float* residual, float* step, std::int64_t slice) const {
        std::array<double, 2> diagonal{1, 1}, number{0, 0}, total{0, 0};
        for (std::size_t view = 0; view < bundles_.size(); ++view) {
            const Bundle& bundle = bundles_[view];
            diagonal[view] = e + bundle.mm * bundle.mm * static_cast<double>(shape_[bundle.axis]);
            for_slice(view, slice, [&](std::size_t ray) {
                number[view] += 1;
                total[view] += residual[ray];
            });
        }
        const double cross = bundles_.size() == 2 ? bundles_[0].mm * bundles_[1].mm : 0;
        const double determinant = diagonal[0] * diagonal[1] - cross * cross * number[0] * number[1];
        // the sum of each view's own steps, by Cramer's rule
        const std::array<double, 2> sum = {
            (diagonal[1] * total[0] - cross * number[0] * total[1]) / determinant,
            (diagonal[0] * total[1] - cross * number[1] * total[0]) / determinant,
        };
        for (std::size_t view = 0; view < bundles_.size(); ++view) {
            for_slice(view, slice, [&](std::size_t ray) {
                step[ray] = static_cast<float>((residual[ray] - cross * sum[1 - view]) / diagonal[view]);
            });
        }
    }

    std::array<std::int64_t, 3> shape_;
    std::vector<Bundle> bundles_;
    int third_;
    int threads_;
};

}  // namespace

std::unique_ptr<RayOperator> aligned_rays(const VolumeGrid& grid, const std::vector<DetectorView>& views, int threads) {
    if (views.empty() || views.size() > 2) return nullptr;
    std::vector<Bundle> bundles;
    for (const DetectorView& view : views) {
        auto bundle = bundle_of(grid, view);
        if (!bundle) return nullptr;
        bundles.push_back(*std::move(bundle));
    }
    if (bundles.size() == 2 && bundles[0].axis == bundles[1].axis) return nullptr;
    return std::make_unique<AlignedRays>(grid, std::move(bundles), threads);
}

}  // namespace x2ct
