// The projector's rays: the host's own projector where the device is the host, the pair of kernels on a GPU.
#include "core/ray_operator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "core/measured_view.h"
#include "core/ray_fan.h"
#include "kernels/ray_kernel.h"

namespace x2ct {
namespace {

// A view on a device that is not the host: its rays are made once, on the host.
struct ViewThere {
    Buffer table;
    kernels::JosephForward forward{};
    kernels::JosephBackward backward{};

    ViewThere(const VolumeGrid& grid, const DetectorView& view, const std::shared_ptr<Device>& device) {
        static_assert(sizeof(kernels::Ray) % sizeof(float) == 0);
        const RayFan fan(grid, view);
        const std::vector<kernels::Ray> rays = fan.table();
        table = Buffer(device, rays.size() * sizeof(kernels::Ray) / sizeof(float));
        device->upload(table.data(), reinterpret_cast<const float*>(rays.data()), table.count());
        const auto* const there = reinterpret_cast<const kernels::Ray*>(table.data());
        forward.table = backward.table = there;
        forward.rows = backward.rows = view.rows, forward.cols = backward.cols = view.cols;
        forward.along_rows = fan.rows_are_contiguous();
        std::ranges::copy(grid.shape, forward.shape), std::ranges::copy(grid.shape, backward.shape);
        for (const kernels::Ray& ray : rays) backward.axes[ray.axis] = backward.axes[ray.axis] || ray.first < ray.last;
        const IndexView seen(grid, view);
        for (std::size_t row = 0; row < 3; ++row) std::ranges::copy(seen.m[row], backward.seen[row]);
    }
};

class JosephRays : public RayOperator {
  public:
    JosephRays(const VolumeGrid& grid, const std::vector<DetectorView>& views, int steps,
               const std::shared_ptr<Device>& device, int threads)
        : RayOperator(device, pixels_of(views)), grid_(grid), views_(views), steps_(steps), threads_(threads) {
        if (device->stream() == nullptr) return;
        for (const DetectorView& view : views_) there_.emplace_back(grid_, view, device);
    }

    void forward(const float* volume, float* rays) const override {
        for (std::size_t view = 0; view < there_.size(); ++view) {
            kernels::JosephForward work = there_[view].forward;
            work.volume = volume, work.rays = rays + first()[view], work.counts = counts_there() + first()[view];
            device()->run(RayKernel{work});
        }
        if (!there_.empty()) return;
        for (std::size_t view = 0; view < views_.size(); ++view) {
            project(volume, grid_, views_[view], rays + first()[view], threads_);
        }
        for (std::size_t ray = 0; ray < this->rays(); ++ray) rays[ray] *= counts()[ray];
    }

    void backward(const float* rays, float* volume) const override {
        for (std::size_t view = 0; view < there_.size(); ++view) {
            kernels::JosephBackward work = there_[view].backward;
            work.volume = volume, work.rays = rays + first()[view], work.accumulate = view > 0;
            device()->run(RayKernel{work});
        }
        if (!there_.empty()) return;
        for (std::size_t view = 0; view < views_.size(); ++view) {
            backproject(rays + first()[view], grid_, views_[view], volume, view > 0, threads_);
        }
    }

    // Conjugate gradients (Hestenes & Stiefel 1952) on (e + A A^T) step = residual, from step = 0. Vectors are as small
    // as the X-rays and lie on the host; volumes stay on the device.
    void solve(double e, const float* residual, float* step, float* work) const override {
        const std::size_t count = rays();
        std::vector<float> r(count), q(count), x(count);
        device()->download(r.data(), residual, count);
        std::vector<float> p = r;
        double rr = dot(r, r);
        for (int k = 0; k < steps_ && rr > 0; ++k) {
            device()->upload(step, p.data(), count);
            backward(step, work);
            forward(work, step);
            device()->download(q.data(), step, count);
            for (std::size_t i = 0; i < count; ++i) q[i] += static_cast<float>(e) * p[i];
            const double alpha = rr / dot(p, q);
            for (std::size_t i = 0; i < count; ++i) {
                x[i] += static_cast<float>(alpha) * p[i];
                r[i] -= static_cast<float>(alpha) * q[i];
            }
            const double before = rr;
            rr = dot(r, r);
            const auto beta = static_cast<float>(rr / before);
            for (std::size_t i = 0; i < count; ++i) p[i] = r[i] + beta * p[i];
        }
        device()->upload(step, x.data(), count);
    }

    bool is_closed_form() const override { return false; }

  private:
    static std::vector<std::vector<std::int64_t>> pixels_of(const std::vector<DetectorView>& views) {
        std::vector<std::vector<std::int64_t>> pixels;
        for (const DetectorView& view : views) {
            auto& all = pixels.emplace_back(static_cast<std::size_t>(view.rows * view.cols));
            std::iota(all.begin(), all.end(), 0);
        }
        return pixels;
    }

    static double dot(const std::vector<float>& a, const std::vector<float>& b) {
        return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
    }

    VolumeGrid grid_;
    std::vector<DetectorView> views_;
    int steps_;
    int threads_;
    std::vector<ViewThere> there_;
};

}  // namespace

std::unique_ptr<RayOperator> joseph_rays(const VolumeGrid& grid, const std::vector<DetectorView>& views, int steps,
                                         const std::shared_ptr<Device>& device, int threads) {
    return std::make_unique<JosephRays>(grid, views, steps, device, threads);
}

// Parallel rays along the grid's axes, one through the centres of each line of voxels: sums, and a closed form.
//
// A ray along axis p meets n_p voxels for h_p mm each, so that A_p A_p^T = h_p^2 n_p. Two rays along p and q cross in
// one voxel if they lie in the same slice of the third axis t, and never otherwise: A_p A_q^T = h_p h_q in each slice.
// Every slice of (e + A A^T) l = r is then
//
//     a l_i + c sum_j k_j = r_i,     b k_j + c sum_i l_i = s_j,     a = e + h_p^2 n_p,  b = e + h_q^2 n_q,  c = h_p
//     h_q,
//
// over the rays i and j that count, and the two sums solve a 2 x 2 system. What is done to a ray, a voxel or a slice is
// kernels/aligned.h.
namespace {

constexpr double kSamePixel = 1e-3;  // of a pixel, at any voxel

// A view's rays and their pixels.
struct AlignedPixels {
    kernels::AlignedView view;
    std::vector<std::int64_t> pixels;  // [size_b, size_c]; -1 off the detector
};

double length(const VolumeGrid& grid, int axis) {
    const auto& m = grid.index_to_mm;
    return std::hypot(m[axis], m[4 + axis], m[8 + axis]);
}

bool is_near(double value, double wanted, std::int64_t times) {
    return std::abs(value - wanted) * static_cast<double>(times) < kSamePixel;
}

std::optional<AlignedPixels> pixels_of(const VolumeGrid& grid, const DetectorView& view) {
    const IndexView seen(grid, view);
    const double w = seen.m[2][3];
    for (int axis = 0; axis < 3; ++axis) {
        if (!is_near(seen.m[2][axis] / w, 0, grid.shape[axis] * std::max(view.rows, view.cols))) return std::nullopt;
    }
    for (int axis = 0; axis < 3; ++axis) {
        for (const bool swapped : {false, true}) {
            const int slow = kernels::slower(axis), fast = kernels::faster(axis);
            const int b = swapped ? fast : slow, c = swapped ? slow : fast;
            // the columns run along b, the rows along c
            const auto fits = [&](int row, int along, int across) {
                const auto& m = seen.m[row];
                return is_near(m[axis] / w, 0, grid.shape[axis]) && is_near(m[across] / w, 0, grid.shape[across]) &&
                       is_near(std::abs(m[along] / w), 1, grid.shape[along]) &&
                       is_near(m[3] / w, std::round(m[3] / w), 1);
            };
            if (!fits(0, b, c) || !fits(1, c, b)) continue;
            AlignedPixels found{{axis, slow, fast, length(grid, axis)}, {}};
            std::array<double, 3> index{};
            for (std::int64_t i = 0; i < grid.shape[slow]; ++i) {
                for (std::int64_t j = 0; j < grid.shape[fast]; ++j) {
                    index[slow] = static_cast<double>(i);
                    index[fast] = static_cast<double>(j);
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
    AlignedRays(const VolumeGrid& grid, const std::vector<kernels::AlignedView>& views,
                const std::vector<std::vector<std::int64_t>>& pixels, const std::shared_ptr<Device>& device)
        : RayOperator(device, pixels), shape_(grid.shape), views_(views) {
        third_ = views_.size() == 2 ? 3 - views_[0].axis - views_[1].axis : views_[0].b;
        // a number and a sum a slice, in double precision
        for (std::size_t k = 0; k < views_.size(); ++k) totals_.emplace_back(device, 4 * shape_[third_]);
    }

    void forward(const float* volume, float* rays) const override {
        for (std::size_t k = 0; k < views_.size(); ++k) {
            auto work = with_shape(kernels::AlignedForward{});
            work.view = views_[k], work.volume = volume;
            work.counts = counts_there() + first()[k], work.rays = rays + first()[k];
            device()->run(RayKernel{work});
        }
    }

    void backward(const float* rays, float* volume) const override {
        auto work = with_shape(kernels::AlignedBackward{});
        work.number = static_cast<int>(views_.size()), work.volume = volume;
        for (std::size_t k = 0; k < views_.size(); ++k) work.views[k] = views_[k], work.rays[k] = rays + first()[k];
        device()->run(RayKernel{work});
    }

    void solve(double e, const float* residual, float* step, float*) const override {
        for (std::size_t k = 0; k < views_.size(); ++k) {
            auto work = with_shape(kernels::SliceTotals{});
            work.view = views_[k], work.third = third_, work.totals = totals(k);
            work.residual = residual + first()[k], work.counts = counts_there() + first()[k];
            device()->run(RayKernel{work});
        }
        for (std::size_t k = 0; k < views_.size(); ++k) {
            auto work = with_shape(kernels::SliceSteps{});
            work.view = views_[k], work.third = third_;
            work.totals = totals(k), work.diagonal = diagonal(k, e);
            if (views_.size() == 2) {
                work.other_totals = totals(1 - k), work.other_diagonal = diagonal(1 - k, e);
                work.cross = views_[0].mm * views_[1].mm;
            }
            work.residual = residual + first()[k], work.counts = counts_there() + first()[k];
            work.step = step + first()[k];
            device()->run(RayKernel{work});
        }
    }

    bool is_closed_form() const override { return true; }

  private:
    template <typename Work>
    Work with_shape(Work work) const {
        std::ranges::copy(shape_, work.shape);
        return work;
    }

    double diagonal(std::size_t view, double e) const {
        return e + views_[view].mm * views_[view].mm * static_cast<double>(shape_[views_[view].axis]);
    }

    double* totals(std::size_t view) const { return reinterpret_cast<double*>(totals_[view].data()); }

    std::array<std::int64_t, 3> shape_;
    std::vector<kernels::AlignedView> views_;
    int third_;
    std::vector<Buffer> totals_;
};

}  // namespace

std::unique_ptr<RayOperator> aligned_rays(const VolumeGrid& grid, const std::vector<DetectorView>& views,
                                          const std::shared_ptr<Device>& device) {
    if (views.empty() || views.size() > 2) return nullptr;
    std::vector<kernels::AlignedView> aligned;
    std::vector<std::vector<std::int64_t>> pixels;
    for (const DetectorView& view : views) {
        auto found = pixels_of(grid, view);
        if (!found) return nullptr;
        aligned.push_back(found->view);
        pixels.push_back(std::move(found->pixels));
    }
    if (aligned.size() == 2 && aligned[0].axis == aligned[1].axis) return nullptr;
    return std::make_unique<AlignedRays>(grid, aligned, pixels, device);
}

RayOperator::RayOperator(std::shared_ptr<Device> device, const std::vector<std::vector<std::int64_t>>& pixels)
    : device_(std::move(device)) {
    std::vector<float> counts;
    for (const auto& view : pixels) {
        pixel_.insert(pixel_.end(), view.begin(), view.end());
        first_.push_back(pixel_.size());
        for (const std::int64_t pixel : view) counts.push_back(pixel < 0 ? 0.0F : 1.0F);
    }
    counts_there_ = Buffer(device_, counts.size());
    count(std::move(counts));
}

void RayOperator::count(std::vector<float> weights) {
    counts_ = std::move(weights);
    device_->upload(counts_there_.data(), counts_.data(), counts_.size());
}

}  // namespace x2ct
