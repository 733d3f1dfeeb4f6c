// The GPU's memory, and the pinned memory through which the host's goes in and out.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

namespace x2ct::cuda {

/// Memory that is kept when it is given back. Of what is kept the oldest is taken, so that a run gets the same
/// addresses as the one before, which recorded work needs, whatever else was taken after it in between; and no
/// allocation waits for the GPU. What is kept is given up when memory runs out.
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
    struct Block {
        std::size_t size;
        std::int64_t number;  // counted up: the oldest has the lowest
    };

    void empty() noexcept;

    std::map<float*, Block> taken_;
    std::map<std::size_t, std::map<std::int64_t, float*>> kept_;  // by size and number
    std::int64_t made_ = 0;
};

/// Pinned memory of the host: two halves that take turns for what goes in, and a buffer that grows to what results
/// take. Copies are queued on the stream.
class Staging {
  public:
    explicit Staging(cudaStream_t stream);
    Staging(const Staging&) = delete;
    Staging& operator=(const Staging&) = delete;
    ~Staging() = default;

    /// Returns when `from` has been read, not when `to` has been written.
    void upload(void* to, const void* from, std::size_t bytes);
    /// Returns when `to` has been written: after one wait, but for results beyond 64 MiB.
    void download(void* to, const void* from, std::size_t bytes);
    /// How often a call waited for the GPU.
    std::int64_t waits() const { return waits_; }

  private:
    struct Pinned {
        Pinned() = default;
        Pinned(const Pinned&) = delete;
        Pinned& operator=(const Pinned&) = delete;
        ~Pinned();

        void* memory = nullptr;
        std::size_t bytes = 0;
        cudaEvent_t copied = nullptr;
    };

    static bool pin(Pinned& buffer, std::size_t bytes);
    void await(Pinned& buffer);

    cudaStream_t stream_;
    std::array<Pinned, 2> halves_;
    Pinned result_;
    std::size_t turn_ = 0;  // of which half
    std::int64_t waits_ = 0;
};

}  // namespace x2ct::cuda
