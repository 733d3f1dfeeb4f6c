// What the sampling loop needs of a device: memory, copies, one fused element-wise kernel, what consistency does along
// rays, and a queue.
//
// A device may run behind its caller: what is asked of it is then queued on its stream, in order, and wait() is where
// the caller lets it catch up. On the CPU everything is done when a call returns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "x2ct/noise.h"

namespace x2ct {

/// One row of the table as a device runs it, with float coefficients and the registers' addresses in the device's
/// memory. A register with coefficient 0 is not read and may be null; an output that is null is not written. Outputs
/// may be registers that the row reads: an element is read before it is written, and no element depends on another.
struct RowKernel {
    struct Weights {
        float x = 0;
        float y = 0;
        std::array<float, 4> h{};
        float noise = 0;
    };

    std::int64_t count = 0;
    const float* x = nullptr;
    const float* y = nullptr;
    const float* denoised = nullptr;
    std::array<const float*, 4> h{};  ///< h[0] is not used: H0 = a y + b D is made here
    float a = 0;
    float b = 0;
    Weights to_x;
    Weights to_y;
    NoiseKey noise;
    float* new_x = nullptr;
    float* new_y = nullptr;
    float* new_h = nullptr;  ///< where H0 is kept for later rows; may be where D is
    int row = -1;            ///< its place among the rows that the device was told of; -1: it is none of them
};

/// One piece of what is done voxel by voxel or ray by ray, mostly by consistency: csrc/kernels/ray_kernel.h, which only
/// devices and the core look into.
struct RayKernel;

/// Voxels along x, y and z, or a voxel's place.
using Index = std::array<std::int64_t, 3>;

/// A box of voxels copied from one grid to another on the same device; z is fastest, `channels` grids lie one behind
/// the other on both sides. The memory does not overlap.
struct BoxCopy {
    const float* from = nullptr;
    Index from_grid{};
    Index from_origin{};
    float* to = nullptr;
    Index to_grid{};
    Index to_origin{};
    Index extent{};
    std::int64_t channels = 1;
};

/// Where a run's time went by a device's own clock, in seconds.
struct DeviceTimes {
    double rows_s = 0;     ///< from each row's first work to its last
    double kernels_s = 0;  ///< in the rows' element-wise kernels
    double gap_s = 0;      ///< the longest between two rows
};

/// A device. Its methods may be called from one thread at a time for each sampler. One that has a stream serves one
/// sampler.
class Device {
  public:
    virtual ~Device() = default;

    /// "cpu", "cuda:0"; a network says by this name where it wants its tensors.
    virtual std::string name() const = 0;

    /// Memory for `count` floats, aligned to 64 bytes; on a device with a stream to 256, which is what TensorRT asks of
    /// a tensor's address. Throws OutOfMemory.
    virtual float* allocate(std::size_t count) = 0;
    virtual void release(float* memory) noexcept = 0;
    /// Whether memory of `count` floats that is released may be kept for the next that wants as many, so that a run's
    /// registers need not be made anew; 0: none. What a device does with it is its own affair.
    virtual void keep(std::size_t count) noexcept { (void)count; }

    virtual void upload(float* to, const float* from_host, std::size_t count) = 0;
    virtual void download(float* to_host, const float* from, std::size_t count) = 0;

    virtual void run(const RowKernel& kernel) = 0;
    virtual void run(const RayKernel& kernel) = 0;
    virtual void copy(const BoxCopy& box) = 0;

    /// The cudaStream_t on which all of this is queued, and onto which networks are to be loaded; null: no queue.
    virtual void* stream() const { return nullptr; }
    /// What is free for allocate(), in bytes; none where the device's memory is the host's.
    virtual std::optional<std::int64_t> free_bytes() const { return std::nullopt; }

    /// The rows of the run that begins, each with its place in `row`; one without voxels has nothing to run. A device
    /// that replays rows keeps their coefficients, and its kernels read them there.
    virtual void begin(std::span<const RowKernel> rows) { (void)rows; }
    /// Does `work`: an evaluation and run() of the row, or this for all rows up to `row`. Where `key` isn't empty,
    /// `work` only queues, and the same key stands for the same work: a device may then record it, and replay it later
    /// without calling `work` again.
    virtual void row(int row, const std::string& key, const std::function<void()>& work) {
        (void)row, (void)key;
        work();
    }
    /// Returns when nothing is queued, and forgets what was recorded: before networks go that row() has recorded, for
    /// others may come to lie at their addresses. The next recordable row is done once without recording.
    virtual void forget() noexcept {}
    /// How many rows may be queued behind the one that runs.
    virtual int ahead() const { return 0; }
    /// Returns when `row` is done.
    virtual void wait(int row) { (void)row; }
    /// Returns when nothing is queued any more.
    virtual void drain() noexcept {}
    /// How often a call has waited for the device so far.
    virtual std::int64_t waits() const { return 0; }
    /// Of the latest run, where the device has a clock of its own; nothing may be queued.
    virtual std::optional<DeviceTimes> times() { return std::nullopt; }
};

/// The host's CPU; `threads` for its kernels, 0 for all. The result doesn't depend on it.
std::shared_ptr<Device> cpu_device(int threads = 0);

/// A device's memory, released when it goes.
class Buffer {
  public:
    Buffer() = default;
    Buffer(std::shared_ptr<Device> device, std::size_t count)
        : device_(std::move(device)), data_(device_->allocate(count)), count_(count) {}
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Buffer() {
        if (data_ != nullptr) device_->release(data_);
    }

    float* data() const { return data_; }
    std::size_t count() const { return count_; }

  private:
    void swap(Buffer& other) noexcept {
        std::swap(device_, other.device_);
        std::swap(data_, other.data_);
        std::swap(count_, other.count_);
    }

    std::shared_ptr<Device> device_;
    float* data_ = nullptr;
    std::size_t count_ = 0;
};

/// Doubles in a device's memory.
inline Buffer doubles_on(const std::shared_ptr<Device>& device, const std::vector<double>& values) {
    std::vector<float> bits(values.size() * sizeof(double) / sizeof(float));
    std::memcpy(bits.data(), values.data(), values.size() * sizeof(double));
    Buffer buffer(device, bits.size());
    device->upload(buffer.data(), bits.data(), bits.size());
    return buffer;
}

/// A buffer's place, for keys of recorded work.
inline std::string key_of(const Buffer& buffer) {
    return std::to_string(reinterpret_cast<std::uintptr_t>(buffer.data())) + ",";
}

}  // namespace x2ct
