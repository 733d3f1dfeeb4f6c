// The projector's rays: the host's own projector where the device is the host, the pair of kernels on a GPU.
#include <algorithm>
#include <array>
#include <numeric>

#include "core/index_view.h"
#include "core/ray_fan.h"
#include "core/ray_operator.h"
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

}  // namespace x2ct
