// The GPU's memory, and the pinned memory through which the host's goes in and out.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>

namespace x2ct::cuda {

/// Memory that is kept when it is given back. Of what is kept the lowest address is taken, so that a run gets the same
/// addresses as the one before, which recorded work needs; and no allocation waits for the GPU. What is kept is given
/// up when memory runs out.
class Pool {
  public:
    Pool() = default;
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    ~Pool();

    /// Throws OutOfMemory.
    float* take(std::size_t bytes);
    void give_back(float* memory) noexcept;
    std::int64_t kept_bytes() const;

  private:
    void empty() noexcept;

    std::map<float*, std::size_t> taken_;
    std::map<std::size_t, std::set<float*>> kept_;  // by size
};

/// Two pinned buffers that take turns. Copies are queued on the stream.
class Staging {
  public:
    explicit Staging(cudaStream_t stream);
    Staging(const Staging&) = delete;
    Staging& operator=(const Staging&) = delete;
    ~Staging();

    /// Returns when `from` has been read, not when `to` has been written.
    void upload(void* to, const void* from, std::size_t bytes);
    void download(void* to, const void* from, std::size_t bytes);
    /// How often a call waited for the GPU.
    std::int64_t waits() const { return waits_; }

  private:
    struct Half {
        void* memory = nullptr;
        cudaEvent_t copied = nullptr;
    };

    void await(Half& half);
    void free() noexcept;

    cudaStream_t stream_;
    std::array<Half, 2> halves_;
    std::size_t turn_ = 0;  // of which half
    std::int64_t waits_ = 0;
};

}  // namespace x2ct::cuda
