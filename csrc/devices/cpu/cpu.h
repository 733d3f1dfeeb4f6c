// The host's memory for volumes.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

#include "kernels/ray_kernel.h"

namespace x2ct {

/// Memory aligned to 64 bytes. What is large comes straight from the kernel and goes back to it when it is released,
/// where malloc might keep it for itself; and it asks for huge pages: registers are new in each run, and by small pages
/// the first touch of one costs more than a pass over it.
class HostMemory {
  public:
    HostMemory() = default;
    HostMemory(const HostMemory&) = delete;
    HostMemory& operator=(const HostMemory&) = delete;
    ~HostMemory();

    /// Throws OutOfMemory.
    float* allocate(std::size_t count);
    void release(float* memory) noexcept;

    /// From now on what is released of `count` floats is kept for the next that wants as many; 0: nothing is kept.
    void keep(std::size_t count) noexcept;

  private:
    std::mutex mutex_;
    std::map<float*, std::size_t> in_use_;  // of how many floats
    std::size_t kept_count_ = 0;
    std::vector<float*> kept_;
};

// What consistency asks of the host.

/// In strips, over threads; the result doesn't depend on how many.
void run_rays(const RayKernel& kernel, int threads);

}  // namespace x2ct
