#include "devices/cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

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

}  // namespace x2ct
