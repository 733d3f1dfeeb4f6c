// devices/ holds one folder a device: its memory, its copies and the few element-wise kernels that the loop needs. A
// device knows neither solvers nor networks.
#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "core/multiversion.h"
#include "core/parallel.h"
#include "x2ct/device.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr std::int64_t kChunk = 1024;  // voxels at a time: a chunk of every register stays in the first-level cache
constexpr std::int64_t kGrain = 32 * kChunk;  // below this, another thread costs more than it saves
constexpr std::align_val_t kAlignment{64};

// The terms of a sum come in the table's order, one product and one addition each, so that sums round alike everywhere.
X2CT_MULTIVERSION
void set_scaled(float* __restrict to, const float* __restrict from, float weight, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = weight * from[i];
}

X2CT_MULTIVERSION
void add_scaled(float* __restrict to, const float* __restrict from, float weight, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) to[i] += weight * from[i];
}

// Sums weighted terms into a chunk.
class Sum {
  public:
    Sum(float* to, std::int64_t count) : to_(to), count_(count) {}

    void add(float weight, const float* from) {
        if (weight == 0) return;
        if (empty_) {
            set_scaled(to_, from, weight, count_);
        } else {
            add_scaled(to_, from, weight, count_);
        }
        empty_ = false;
    }

    void finish() {
        if (empty_) std::fill_n(to_, count_, 0.0f);
    }

  private:
    float* to_;
    std::int64_t count_;
    bool empty_ = true;
};

const float* offset(const float* pointer, std::int64_t at) { return pointer == nullptr ? nullptr : pointer + at; }

void combine(const RowKernel& kernel, const RowKernel::Weights& weights, const float* h0, const float* noise,
             std::int64_t at, std::int64_t count, float* to) {
    Sum sum(to, count);
    sum.add(weights.x, offset(kernel.x, at));
    sum.add(weights.y, offset(kernel.y, at));
    sum.add(weights.h[0], h0);
    for (int k = 1; k < 4; ++k) sum.add(weights.h[k], offset(kernel.h[k], at));
    sum.add(weights.noise, noise);
    sum.finish();
}

bool same(const RowKernel::Weights& a, const RowKernel::Weights& b) {
    return a.x == b.x && a.y == b.y && a.h == b.h && a.noise == b.noise;
}

void run_chunk(const RowKernel& kernel, std::int64_t at, std::int64_t count) {
    alignas(64) float h0[kChunk], noise[kChunk], new_x[kChunk], new_y[kChunk];
    const bool wants_h0 = kernel.new_h != nullptr || kernel.to_x.h[0] != 0 || kernel.to_y.h[0] != 0;
    if (wants_h0) {
        Sum sum(h0, count);
        sum.add(kernel.a, offset(kernel.y, at));
        sum.add(kernel.b, offset(kernel.denoised, at));
        sum.finish();
    }
    const bool noisy =
        (kernel.new_x != nullptr && kernel.to_x.noise != 0) || (kernel.new_y != nullptr && kernel.to_y.noise != 0);
    if (noisy) normal(noise, at, count, kernel.noise);
    // Both are made before either is written: each may overwrite what the other reads.
    const bool shared = kernel.new_x != nullptr && kernel.new_y != nullptr && same(kernel.to_x, kernel.to_y);
    if (kernel.new_x != nullptr) combine(kernel, kernel.to_x, h0, noise, at, count, new_x);
    if (kernel.new_y != nullptr && !shared) combine(kernel, kernel.to_y, h0, noise, at, count, new_y);
    const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
    if (kernel.new_x != nullptr) std::memcpy(kernel.new_x + at, new_x, bytes);
    if (kernel.new_y != nullptr) std::memcpy(kernel.new_y + at, shared ? new_x : new_y, bytes);
    if (kernel.new_h != nullptr) std::memcpy(kernel.new_h + at, h0, bytes);
}

std::int64_t place(const Index& grid, const Index& origin, const Index& at, std::int64_t channel) {
    return ((channel * grid[0] + origin[0] + at[0]) * grid[1] + origin[1] + at[1]) * grid[2] + origin[2] + at[2];
}

class Cpu : public Device {
  public:
    explicit Cpu(int threads) : threads_(thread_count(threads)) {}

    std::string name() const override { return "cpu"; }

    float* allocate(std::size_t count) override {
        void* memory = ::operator new(count * sizeof(float), kAlignment, std::nothrow);
        if (memory == nullptr) {
            throw OutOfMemory("cpu: out of memory for " + std::to_string(count * sizeof(float) >> 20) + " MiB");
        }
        return static_cast<float*>(memory);
    }

    void release(float* memory) noexcept override { ::operator delete(memory, kAlignment); }

    void upload(float* to, const float* from_host, std::size_t count) override {
        std::memcpy(to, from_host, count * sizeof(float));
    }

    void download(float* to_host, const float* from, std::size_t count) override {
        std::memcpy(to_host, from, count * sizeof(float));
    }

    void run(const RowKernel& kernel) override {
        parallel_for(kernel.count, kGrain, kChunk, threads_, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t at = begin; at < end; at += kChunk) run_chunk(kernel, at, std::min(kChunk, end - at));
        });
    }

    void copy(const BoxCopy& box) override {
        const auto [nx, ny, nz] = box.extent;
        parallel_for(box.channels * nx * ny, std::max<std::int64_t>(1, kGrain / nz), 1, threads_,
                     [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t line = begin; line < end; ++line) {
                             const Index at = {line / ny % nx, line % ny, 0};
                             const std::int64_t channel = line / (nx * ny);
                             std::memcpy(box.to + place(box.to_grid, box.to_origin, at, channel),
                                         box.from + place(box.from_grid, box.from_origin, at, channel),
                                         static_cast<std::size_t>(nz) * sizeof(float));
                         }
                     });
    }

  private:
    int threads_;
};

}  // namespace

std::shared_ptr<Device> cpu_device(int threads) {
    if (threads < 0) throw InputError("threads: found " + std::to_string(threads) + ", expected 0 or more");
    return std::make_shared<Cpu>(threads);
}

}  // namespace x2ct
