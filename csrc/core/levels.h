// A run's noise levels on the device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "x2ct/device.h"

namespace x2ct {

/// All levels go to the device at once, before the run; within it, the present one is copied to where the network looks
/// for it, so that nothing of a row comes from the host.
class Levels {
  public:
    /// `samples`: how often the network wants each level, its batch.
    Levels(std::shared_ptr<Device> device, std::int64_t samples)
        : device_(std::move(device)), samples_(samples), present_(device_, static_cast<std::size_t>(samples)) {}

    void set(const std::vector<float>& sigmas) {
        std::vector<float> repeated;
        for (const float sigma : sigmas) repeated.insert(repeated.end(), static_cast<std::size_t>(samples_), sigma);
        if (all_.count() < repeated.size()) all_ = Buffer(device_, repeated.size());
        device_->upload(all_.data(), repeated.data(), repeated.size());
    }

    /// From here on present() is the level of `row`.
    void choose(int row) {
        const Index line = {1, 1, samples_}, table = {1, 1, static_cast<std::int64_t>(all_.count())};
        device_->copy({all_.data(), table, {0, 0, row * samples_}, present_.data(), line, {}, line});
    }

    const float* present() const { return present_.data(); }
    std::int64_t samples() const { return samples_; }

    /// Where it all lies; see Evaluator::key.
    std::string key() const { return key_of(all_) + key_of(present_); }

  private:
    std::shared_ptr<Device> device_;
    std::int64_t samples_;
    Buffer present_, all_;
};

}  // namespace x2ct
