// A run's volumes, and what each row of its table does with them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "x2ct/device.h"
#include "x2ct/table.h"

namespace x2ct {

/// The volumes that a table uses, and no more of them. The table must outlive them.
class Registers {
  public:
    /// `count` voxels each; `seed` and `sample` are those of the noise. Throws OutOfMemory.
    Registers(const std::shared_ptr<Device>& device, const Table& table, std::int64_t count, std::uint64_t seed,
              std::uint32_t sample);

    /// What the network is given.
    const float* y() const { return y_.data(); }
    /// Where the network writes D in `row`.
    float* denoised(int row) const { return h(row, 0); }

    /// y = start_scale n0 (+ start_noise n1), and x the same where the first row reads it.
    std::vector<RowKernel> start() const;
    /// The row's linear combinations; without voxels where the last row ends at D.
    RowKernel step(int row) const;

    /// What the last row leaves.
    float* result() const;
    /// Releases all others, so that copying the result of a large volume needs no more memory than the loop.
    void keep_result();

    /// Where they lie, for keys of recorded work.
    std::string key() const;

  private:
    float* h(int row, int k) const;
    RowKernel kernel(std::uint32_t draw) const;

    const Table& table_;
    std::int64_t count_;
    std::uint64_t seed_;
    std::uint32_t sample_;
    Buffer x_, y_;
    std::vector<Buffer> ring_;
};

// A run's noise levels on the device.

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
