#include "devices/cpu/memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <string>

#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr std::size_t kAlignment = 64, kHugePage = 2 << 20;

float* new_memory(std::size_t count) {
    const std::size_t bytes = count * sizeof(float);
    void* memory = nullptr;
    if (posix_memalign(&memory, bytes < kHugePage ? kAlignment : kHugePage, bytes) != 0) {
        throw OutOfMemory("cpu: out of memory for " + std::to_string(bytes >> 20) + " MiB");
    }
    if (bytes >= kHugePage) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
    return static_cast<float*>(memory);
}

}  // namespace

HostMemory::~HostMemory() { keep(0); }

float* HostMemory::allocate(std::size_t count) {
    const std::scoped_lock lock(mutex_);
    if (count == 0 || count != kept_count_) return new_memory(count);
    if (kept_.empty()) {
        kept_.reserve(of_kept_count_.size() + 1);  // releasing must not fail
        kept_.push_back(new_memory(count));
    }
    float* const memory = kept_.back();
    of_kept_count_.insert(memory);
    kept_.pop_back();
    return memory;
}

void HostMemory::release(float* memory) noexcept {
    const std::scoped_lock lock(mutex_);
    if (of_kept_count_.erase(memory) > 0) {
        kept_.push_back(memory);
    } else {
        std::free(memory);
    }
}

void HostMemory::keep(std::size_t count) noexcept {
    const std::scoped_lock lock(mutex_);
    if (count == kept_count_) return;
    for (float* memory : kept_) std::free(memory);
    kept_.clear();
    of_kept_count_.clear();  // these are freed when they are released
    kept_count_ = count;
}

}  // namespace x2ct
