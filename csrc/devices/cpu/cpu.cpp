#include "devices/cpu/cpu.h"

#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <variant>

#include "core/parallel.h"
#include "x2ct/device.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr std::size_t kAlignment = 64, kHugePage = 2 << 20;

std::size_t round_up(std::size_t value, std::size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

std::size_t mapped_bytes(std::size_t count) {
    static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return round_up(count * sizeof(float), page);
}

bool is_mapped(std::size_t count) { return count * sizeof(float) >= kHugePage; }

// From a huge page's beginning, for which the kernel is asked for more than is needed; null if there is none.
float* mapped(std::size_t count) {
    const std::size_t bytes = mapped_bytes(count);
    void* const wide = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (wide == MAP_FAILED) return nullptr;
    auto* const begin = static_cast<std::byte*>(wide);
    const auto address = reinterpret_cast<std::uintptr_t>(wide);
    const std::size_t before = round_up(address, kHugePage) - address, after = kHugePage - before;
    if (before > 0) munmap(begin, before);
    if (after > 0) munmap(begin + before + bytes, after);
    std::byte* const memory = begin + before;
    madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
    return reinterpret_cast<float*>(memory);
}

float* new_memory(std::size_t count) {
    const std::size_t bytes = std::max<std::size_t>(count, 1) * sizeof(float);
    void* const memory = is_mapped(count) ? mapped(count) : std::aligned_alloc(kAlignment, round_up(bytes, kAlignment));
    if (memory == nullptr) throw OutOfMemory("cpu: out of memory for " + std::to_string(bytes >> 20) + " MiB");
    return static_cast<float*>(memory);
}

void give_back(float* memory, std::size_t count) noexcept {
    if (is_mapped(count)) {
        munmap(memory, mapped_bytes(count));
    } else {
        std::free(memory);
    }
}

}  // namespace

HostMemory::~HostMemory() { keep(0); }

float* HostMemory::allocate(std::size_t count) {
    const std::scoped_lock lock(mutex_);
    kept_.reserve(in_use_.size() + kept_.size() + 1);  // releasing must not fail
    const bool is_there = count == kept_count_ && !kept_.empty();
    float* const memory = is_there ? kept_.back() : new_memory(count);
    if (is_there) kept_.pop_back();
    in_use_[memory] = count;
    return memory;
}

void HostMemory::release(float* memory) noexcept {
    const std::scoped_lock lock(mutex_);
    const auto found = in_use_.find(memory);
    const std::size_t count = found->second;
    in_use_.erase(found);
    if (count > 0 && count == kept_count_) {
        kept_.push_back(memory);
    } else {
        give_back(memory, count);
    }
}

void HostMemory::keep(std::size_t count) noexcept {
    const std::scoped_lock lock(mutex_);
    if (count == kept_count_) return;
    for (float* memory : kept_) give_back(memory, kept_count_);
    kept_.clear();
    kept_count_ = count;
}

namespace {

constexpr std::int64_t kGrainReads = 1 << 15;  // reads, below which another thread costs more than it saves

template <typename Work>
void run_line(const Work& work, std::int64_t line) {
    const std::int64_t first = line * work.line(), last = std::min(work.count(), first + work.line());
    for (std::int64_t at = first; at < last; at += kernels::kStrip) {
        work.template run<kernels::kStrip>(at, std::min<std::int64_t>(last, at + kernels::kStrip));
    }
}

}  // namespace

void run_rays(const RayKernel& kernel, int threads) {
    std::visit(
        [threads](const auto& work) {
            const std::int64_t lines = (work.count() + work.line() - 1) / work.line();
            parallel_for(lines, std::max<std::int64_t>(1, kGrainReads / (work.line() * work.cost())), 1, threads,
                         [&](std::int64_t begin, std::int64_t end) {
                             for (std::int64_t line = begin; line < end; ++line) run_line(work, line);
                         });
        },
        kernel.work);
}

// devices/ holds one folder a device: its memory, its copies and the few element-wise kernels that the loop needs. A
// device knows neither solvers nor networks.
namespace {

constexpr std::int64_t kChunk = 1024;  // voxels at a time: what is made on the way stays in the first-level cache
constexpr std::int64_t kGrain = 32 * kChunk;  // below this, another thread costs more than it saves

// A sum over registers. Its terms come in the table's order, one product and one addition each, so that sums round
// alike everywhere; a term of weight 0 is none.
class Sum {
  public:
    void add(float weight, const float* from) {
        if (weight == 0) return;
        weights_[count_] = weight;
        from_[count_++] = from;
    }

    void write(float* to, std::int64_t count) const;

  private:
    static constexpr int kMost = 7;

    template <int Terms>
    X2CT_INLINE void of(float* to, std::int64_t count) const;

    std::array<float, kMost> weights_{};
    std::array<const float*, kMost> from_{};
    int count_ = 0;
};

// One pass over all terms. `to` may be one of them: an element is read before it is written.
template <int Terms>
X2CT_INLINE void Sum::of(float* to, std::int64_t count) const {
    float weights[Terms];
    const float* from[Terms];
    for (int k = 0; k < Terms; ++k) weights[k] = weights_[k], from[k] = from_[k];
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) {
        float sum = weights[0] * from[0][i];
        for (int k = 1; k < Terms; ++k) sum += weights[k] * from[k][i];
        to[i] = sum;
    }
}

X2CT_MULTIVERSION
void Sum::write(float* to, std::int64_t count) const {
    switch (count_) {
        case 1:
            return of<1>(to, count);
        case 2:
            return of<2>(to, count);
        case 3:
            return of<3>(to, count);
        case 4:
            return of<4>(to, count);
        case 5:
            return of<5>(to, count);
        case 6:
            return of<6>(to, count);
        case 7:
            return of<7>(to, count);
        default:
            std::fill_n(to, count, 0.0f);
    }
}

const float* offset(const float* pointer, std::int64_t at) { return pointer == nullptr ? nullptr : pointer + at; }

Sum combined(const RowKernel& kernel, const RowKernel::Weights& weights, const float* h0, const float* noise,
             std::int64_t at) {
    Sum sum;
    sum.add(weights.x, offset(kernel.x, at));
    sum.add(weights.y, offset(kernel.y, at));
    sum.add(weights.h[0], h0);
    for (int k = 1; k < 4; ++k) sum.add(weights.h[k], offset(kernel.h[k], at));
    sum.add(weights.noise, noise);
    return sum;
}

bool same(const RowKernel::Weights& a, const RowKernel::Weights& b) {
    return a.x == b.x && a.y == b.y && a.h == b.h && a.noise == b.noise;
}

// Where H0 of a chunk lies: in D itself where it is the data prediction, where it is to be kept, or in `scratch`.
const float* h0_of(const RowKernel& kernel, std::int64_t at, std::int64_t count, float* scratch) {
    const bool is_read = kernel.to_x.h[0] != 0 || kernel.to_y.h[0] != 0;
    if (kernel.new_h == nullptr && !is_read) return nullptr;
    const bool is_denoised = kernel.a == 0 && kernel.b == 1;
    if (is_denoised && (kernel.new_h == nullptr || kernel.new_h == kernel.denoised)) return kernel.denoised + at;
    float* const to = kernel.new_h == nullptr ? scratch : kernel.new_h + at;
    Sum sum;
    sum.add(kernel.a, offset(kernel.y, at));
    sum.add(kernel.b, offset(kernel.denoised, at));
    sum.write(to, count);
    return to;
}

void run_chunk(const RowKernel& kernel, std::int64_t at, std::int64_t count) {
    alignas(64) float scratch[kChunk], noise[kChunk], scratch_x[kChunk];
    const float* const h0 = h0_of(kernel, at, count, scratch);
    const bool noisy =
        (kernel.new_x != nullptr && kernel.to_x.noise != 0) || (kernel.new_y != nullptr && kernel.to_y.noise != 0);
    if (noisy) normal(noise, at, count, kernel.noise);
    const auto x = [&](float* to) { combined(kernel, kernel.to_x, h0, noise, at).write(to, count); };
    const auto y = [&](float* to) { combined(kernel, kernel.to_y, h0, noise, at).write(to, count); };
    float* const new_x = kernel.new_x == nullptr ? nullptr : kernel.new_x + at;
    float* const new_y = kernel.new_y == nullptr ? nullptr : kernel.new_y + at;
    const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
    if (new_x == nullptr || new_y == nullptr) {
        if (new_x != nullptr) x(new_x);
        if (new_y != nullptr) y(new_y);
    } else if (same(kernel.to_x, kernel.to_y)) {
        y(new_y);
        std::memcpy(new_x, new_y, bytes);
    } else if (kernel.to_x.y == 0) {  // each may overwrite what the other reads
        y(new_y), x(new_x);
    } else if (kernel.to_y.x == 0) {
        x(new_x), y(new_y);
    } else {
        x(scratch_x), y(new_y);
        std::memcpy(new_x, scratch_x, bytes);
    }
}

std::int64_t place(const Index& grid, const Index& origin, const Index& at, std::int64_t channel) {
    return ((channel * grid[0] + origin[0] + at[0]) * grid[1] + origin[1] + at[1]) * grid[2] + origin[2] + at[2];
}

class Cpu : public Device {
  public:
    explicit Cpu(int threads) : threads_(thread_count(threads)) {}

    std::string name() const override { return "cpu"; }

    float* allocate(std::size_t count) override { return memory_.allocate(count); }

    void release(float* memory) noexcept override { memory_.release(memory); }

    void keep(std::size_t count) noexcept override { memory_.keep(count); }

    void upload(float* to, const float* from_host, std::size_t count) override { copy(to, from_host, count); }

    void download(float* to_host, const float* from, std::size_t count) override { copy(to_host, from, count); }

    void run(const RowKernel& kernel) override {
        parallel_for(kernel.count, kGrain, kChunk, threads_, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t at = begin; at < end; at += kChunk) run_chunk(kernel, at, std::min(kChunk, end - at));
        });
    }

    void run(const RayKernel& kernel) override { run_rays(kernel, threads_); }

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
    void copy(float* to, const float* from, std::size_t count) const {
        parallel_for(static_cast<std::int64_t>(count), kGrain, kChunk, threads_,
                     [&](std::int64_t begin, std::int64_t end) {
                         std::memcpy(to + begin, from + begin, static_cast<std::size_t>(end - begin) * sizeof(float));
                     });
    }

    int threads_;
    HostMemory memory_;
};

}  // namespace

std::shared_ptr<Device> cpu_device(int threads) {
    if (threads < 0) throw InputError("threads: found " + std::to_string(threads) + ", expected 0 or more");
    return std::make_shared<Cpu>(threads);
}

}  // namespace x2ct
