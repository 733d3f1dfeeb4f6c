#include "core/ray_operator.h"

namespace x2ct {

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
