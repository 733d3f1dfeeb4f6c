#include "pool.h"

#ifdef X2CT_TORCH_CUDA_HEADERS
#define C10_CUDA_NO_CMAKE_CONFIGURE_FILE  // which a release for the CPU lacks; it matters on Windows alone
#include <c10/cuda/CUDACachingAllocator.h>

#include <atomic>
#include <cstdint>

#include "torch_backend.h"
#include "x2ct/error.h"
#endif

namespace x2ct::torch {

#ifdef X2CT_TORCH_CUDA_HEADERS
namespace {

using Allocator = c10::cuda::CUDACachingAllocator::CUDAAllocator;

// PyTorch numbers its own pools (0, n) and (n, 0), so that one with two large numbers is none of them.
c10::cuda::MempoolId_t new_pool() {
    static std::atomic<std::uint64_t> made{std::uint64_t{1} << 62};
    const auto number = ++made;
    return {number, number};
}

// Found by name: this library is not linked to PyTorch's CUDA part, which a build for the CPU lacks.
Allocator& allocator() {
    constexpr const char* kName = "_ZN3c104cuda20CUDACachingAllocator9allocatorE";
    auto* const held = static_cast<std::atomic<Allocator*>*>(cuda_symbol(kName));
    if (held == nullptr || held->load() == nullptr) {
        throw MissingRuntime("torch " + version() +
                             ": found no caching allocator in it, expected one to record its work; use provider "
                             "option cuda_graph=0");
    }
    return *held->load();
}

class CudaCalls : public PoolCalls {
  public:
    CudaCalls(const Place& place, void* stream)
        : allocator_(allocator()),
          device_(static_cast<c10::DeviceIndex>(place.index)),
          stream_(static_cast<cudaStream_t>(stream)),
          pool_(new_pool()) {}

    void begin() override {
        allocator_.beginAllocateToPool(device_, pool_, [mine = stream_](cudaStream_t one) { return one == mine; });
    }
    void end() override { allocator_.endAllocateToPool(device_, pool_); }
    void release() override { allocator_.releasePool(device_, pool_); }
    void empty() override { allocator_.emptyCache(pool_); }

  private:
    Allocator& allocator_;
    c10::DeviceIndex device_;
    cudaStream_t stream_;
    c10::cuda::MempoolId_t pool_;
};

}  // namespace

std::unique_ptr<Pool> private_pool(const Place& place, void* stream) {
    if (place.is_cpu() || stream == nullptr) return nullptr;
    return std::make_unique<Pool>(std::make_unique<CudaCalls>(place, stream));
}
#else
std::unique_ptr<Pool> private_pool(const Place&, void*) { return nullptr; }
#endif

}  // namespace x2ct::torch
