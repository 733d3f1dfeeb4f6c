// The rays of several views on a device, as one operator A: line integrals along all of them, its transpose, and the
// inverse that a round of consistency needs.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "x2ct/device.h"
#include "x2ct/projector.h"

namespace x2ct {

/// Maps a volume [X, Y, Z] to one value a ray, the views' rays one after the other in the operator's own order. What
/// does not count is 0 in every result. Volumes and rays lie in the device's memory unless said otherwise.
class RayOperator {
  public:
    virtual ~RayOperator() = default;

    std::size_t rays() const { return pixel_.size(); }
    /// Where each view's rays begin, and the end.
    const std::vector<std::size_t>& first() const { return first_; }

    /// From pixels [rows, cols] to rays, both on the host; a ray without a pixel gets 0.
    template <typename Value>
    void gather(std::size_t view, const std::vector<Value>& image, float* rays) const {
        for (std::size_t ray = first_[view]; ray < first_[view + 1]; ++ray) {
            const std::int64_t pixel = pixel_[ray];
            rays[ray] = pixel < 0 ? 0.0F : static_cast<float>(image[static_cast<std::size_t>(pixel)]);
        }
    }

    /// Which rays count, 1 or 0; all that have a pixel unless set.
    void count(std::vector<float> weights);
    const std::vector<float>& counts() const { return counts_; }
    const float* counts_there() const { return counts_there_.data(); }

    virtual void forward(const float* volume, float* rays) const = 0;
    /// `volume` is overwritten. `rays` is 0 for rays that don't count.
    virtual void backward(const float* rays, float* volume) const = 0;
    /// step = (e + A A^T)^-1 residual, or near it; `work` is a volume of scratch.
    virtual void solve(double e, const float* residual, float* step, float* work) const = 0;
    virtual bool is_closed_form() const = 0;

  protected:
    /// By view the pixel of each ray, -1 for a ray without one.
    RayOperator(std::shared_ptr<Device> device, const std::vector<std::vector<std::int64_t>>& pixels);

    const std::shared_ptr<Device>& device() const { return device_; }

  private:
    std::shared_ptr<Device> device_;
    std::vector<std::int64_t> pixel_;
    std::vector<std::size_t> first_ = {0};
    std::vector<float> counts_;
    Buffer counts_there_;
};

/// The projector's rays, and `steps` of CG from 0 for the inverse. `threads` of the host, where the device is the host.
std::unique_ptr<RayOperator> joseph_rays(const VolumeGrid& grid, const std::vector<DetectorView>& views, int steps,
                                         const std::shared_ptr<Device>& device, int threads = 0);

/// Sums along grid axes, and the closed form. Null unless there are one or two parallel views, along different axes,
/// with one pixel for each line of voxels.
std::unique_ptr<RayOperator> aligned_rays(const VolumeGrid& grid, const std::vector<DetectorView>& views,
                                          const std::shared_ptr<Device>& device);

}  // namespace x2ct
