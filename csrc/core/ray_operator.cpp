#include "core/ray_operator.h"

#include <algorithm>
#include <numeric>

namespace x2ct {

void RayOperator::add_view(std::vector<std::int64_t> pixels) {
    pixel_.insert(pixel_.end(), pixels.begin(), pixels.end());
    first_.push_back(pixel_.size());
    for (const std::int64_t pixel : pixels) counts_.push_back(pixel < 0 ? 0.0F : 1.0F);
}

namespace {

class JosephRays : public RayOperator {
  public:
    JosephRays(const VolumeGrid& grid, const std::vector<DetectorView>& views, int steps, int threads)
        : grid_(grid), views_(views), steps_(steps), threads_(threads) {
        for (const DetectorView& view : views_) {
            std::vector<std::int64_t> pixels(static_cast<std::size_t>(view.rows * view.cols));
            std::iota(pixels.begin(), pixels.end(), 0);
            add_view(std::move(pixels));
        }
    }

    void forward(const float* volume, float* rays) const override {
        for (std::size_t view = 0; view < views_.size(); ++view) {
            project(volume, grid_, views_[view], rays + first()[view], threads_);
        }
        for (std::size_t ray = 0; ray < this->rays(); ++ray) rays[ray] *= counts()[ray];
    }

    void backward(const float* rays, float* volume) const override {
        for (std::size_t view = 0; view < views_.size(); ++view) {
            backproject(rays + first()[view], grid_, views_[view], volume, view > 0, threads_);
        }
    }

    // Conjugate gradients (Hestenes & Stiefel 1952) on (e + A A^T) step = residual, from step = 0.
    void solve(double e, const float* residual, float* step, float* work) const override {
        const std::size_t count = rays();
        std::vector<float> r(residual, residual + count), p = r, q(count);
        std::fill_n(step, count, 0.0F);
        double rr = dot(r, r);
        for (int k = 0; k < steps_ && rr > 0; ++k) {
            backward(p.data(), work);
            forward(work, q.data());
            for (std::size_t i = 0; i < count; ++i) q[i] += static_cast<float>(e) * p[i];
            const double alpha = rr / dot(p, q);
            for (std::size_t i = 0; i < count; ++i) {
                step[i] += static_cast<float>(alpha) * p[i];
                r[i] -= static_cast<float>(alpha) * q[i];
            }
            const double before = rr;
            rr = dot(r, r);
            const auto beta = static_cast<float>(rr / before);
            for (std::size_t i = 0; i < count; ++i) p[i] = r[i] + beta * p[i];
        }
    }

    bool is_closed_form() const override { return false; }

  private:
    static double dot(const std::vector<float>& a, const std::vector<float>& b) {
        return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
    }

    VolumeGrid grid_;
    std::vector<DetectorView> views_;
    int steps_;
    int threads_;
};

}  // namespace

std::unique_ptr<RayOperator> joseph_rays(const VolumeGrid& grid, const std::vector<DetectorView>& views, int steps,
                                         int threads) {
    return std::make_unique<JosephRays>(grid, views, steps, threads);
}

}  // namespace x2ct
