// The host's memory for volumes.
#pragma once

#include <cstddef>
#include <mutex>
#include <set>
#include <vector>

namespace x2ct {

/// Memory aligned to 64 bytes. What is large asks for huge pages: registers are new in each run, and by small pages the
/// first touch of one costs more than a pass over it.
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
    std::size_t kept_count_ = 0;
    std::vector<float*> kept_;
    std::set<float*> of_kept_count_;  // in use
};

}  // namespace x2ct
