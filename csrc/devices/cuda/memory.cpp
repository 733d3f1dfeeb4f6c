#include "devices/cuda/memory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "devices/cuda/failure.h"
#include "x2ct/error.h"

namespace x2ct::cuda {
namespace {

constexpr std::size_t kGranule = 512;
constexpr std::size_t kHalf = std::size_t{4} << 20;

}  // namespace

Pool::~Pool() {
    empty();
    for (const auto& [memory, size] : taken_) cudaFree(memory);
}

float* Pool::take(std::size_t bytes) {
    const std::size_t size = std::max<std::size_t>((bytes + kGranule - 1) / kGranule, 1) * kGranule;
    if (auto& kept = kept_[size]; !kept.empty()) {
        float* const memory = *kept.begin();
        taken_[memory] = size;
        kept.erase(kept.begin());
        return memory;
    }
    void* memory = nullptr;
    cudaError_t status = cudaMalloc(&memory, size);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        empty();
        status = cudaMalloc(&memory, size);
    }
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        throw OutOfMemory("cuda: out of memory for " + std::to_string(size >> 20) + " MiB");
    }
    check(status, "allocating");
    taken_[static_cast<float*>(memory)] = size;
    return static_cast<float*>(memory);
}

void Pool::give_back(float* memory) noexcept {
    const auto found = taken_.find(memory);
    if (found == taken_.end()) return;
    try {
        kept_[found->second].insert(memory);
    } catch (...) {
        cudaFree(memory);
    }
    taken_.erase(found);
}

std::int64_t Pool::kept_bytes() const {
    std::int64_t bytes = 0;
    for (const auto& [size, kept] : kept_) bytes += static_cast<std::int64_t>(size * kept.size());
    return bytes;
}

void Pool::empty() noexcept {
    for (const auto& [size, kept] : kept_) {
        for (float* const memory : kept) cudaFree(memory);
    }
    kept_.clear();
}

Staging::Staging(cudaStream_t stream) : stream_(stream) {
    try {
        for (Half& half : halves_) {
            check(cudaHostAlloc(&half.memory, kHalf, cudaHostAllocDefault), "pinning memory of the host");
            check(cudaEventCreateWithFlags(&half.copied, cudaEventDisableTiming), "making an event");
        }
    } catch (...) {
        free();
        throw;
    }
}

Staging::~Staging() { free(); }

void Staging::free() noexcept {
    for (Half& half : halves_) {
        if (half.copied != nullptr) cudaEventDestroy(half.copied);
        if (half.memory != nullptr) cudaFreeHost(half.memory);
    }
}

// An event that was never recorded is done.
void Staging::await(Half& half) {
    if (cudaEventQuery(half.copied) == cudaSuccess) return;
    ++waits_;
    check(cudaEventSynchronize(half.copied), "waiting for a copy");
}

void Staging::upload(void* to, const void* from, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes; at += kHalf) {
        Half& half = halves_[turn_++ % 2];
        const std::size_t size = std::min(kHalf, bytes - at);
        await(half);
        std::memcpy(half.memory, static_cast<const char*>(from) + at, size);
        check(cudaMemcpyAsync(static_cast<char*>(to) + at, half.memory, size, cudaMemcpyHostToDevice, stream_),
              "copying to the GPU");
        check(cudaEventRecord(half.copied, stream_), "recording an event");
    }
}

// One half is read while the other is filled. What was uploaded through a half has been read when the stream comes
// here.
void Staging::download(void* to, const void* from, std::size_t bytes) {
    const std::size_t pieces = (bytes + kHalf - 1) / kHalf;
    for (std::size_t piece = 0; piece < pieces + 1; ++piece) {
        if (piece < pieces) {
            const Half& half = halves_[turn_++ % 2];
            const std::size_t at = piece * kHalf, size = std::min(kHalf, bytes - at);
            check(cudaMemcpyAsync(half.memory, static_cast<const char*>(from) + at, size, cudaMemcpyDeviceToHost,
                                  stream_),
                  "copying from the GPU");
            check(cudaEventRecord(half.copied, stream_), "recording an event");
        }
        if (piece > 0) {
            Half& half = halves_[(piece < pieces ? turn_ : turn_ + 1) % 2];  // the one before the latest
            const std::size_t at = (piece - 1) * kHalf;
            await(half);
            std::memcpy(static_cast<char*>(to) + at, half.memory, std::min(kHalf, bytes - at));
        }
    }
}

}  // namespace x2ct::cuda
