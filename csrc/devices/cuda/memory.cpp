#include "devices/cuda/memory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/parallel.h"
#include "devices/cuda/cuda.h"
#include "x2ct/error.h"

namespace x2ct::cuda {
namespace {

constexpr std::size_t kGranule = 512;
constexpr std::size_t kHalf = std::size_t{4} << 20;
constexpr std::size_t kMostPinned = std::size_t{64} << 20;  // for a result; a larger one comes in pieces
// Of the copy into the caller's memory: most often it is new, and its pages are made as they are written.
constexpr int kThreads = 4;
constexpr std::int64_t kGrain = 1 << 20, kPage = 4096;

}  // namespace

Pool::~Pool() {
    empty();
    for (const auto& [memory, block] : taken_) cudaFree(memory);
}

float* Pool::take(std::size_t bytes) {
    const std::size_t size = std::max<std::size_t>((bytes + kGranule - 1) / kGranule, 1) * kGranule;
    if (auto& kept = kept_[size]; !kept.empty()) {
        const auto [number, memory] = *kept.begin();
        taken_[memory] = {size, number};
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
    taken_[static_cast<float*>(memory)] = {size, made_++};
    return static_cast<float*>(memory);
}

void Pool::give_back(float* memory) noexcept {
    const auto found = taken_.find(memory);
    if (found == taken_.end()) return;
    try {
        kept_[found->second.size][found->second.number] = memory;
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
        for (const auto& [number, memory] : kept) cudaFree(memory);
    }
    kept_.clear();
}

Staging::Pinned::~Pinned() {
    if (copied != nullptr) cudaEventDestroy(copied);
    if (memory != nullptr) cudaFreeHost(memory);
}

Staging::Staging(cudaStream_t stream) : stream_(stream) {
    for (Pinned& half : halves_) {
        if (!pin(half, kHalf)) throw OutOfMemory("cuda: pinning memory of the host: found none left");
    }
}

// Makes it as large as `bytes` at least, and says whether it is. Nothing that uses it may be under way.
bool Staging::pin(Pinned& buffer, std::size_t bytes) {
    if (buffer.bytes >= bytes) return true;
    if (buffer.copied == nullptr) {
        check(cudaEventCreateWithFlags(&buffer.copied, cudaEventDisableTiming), "making an event");
    }
    if (buffer.memory != nullptr) cudaFreeHost(buffer.memory);
    buffer.memory = nullptr, buffer.bytes = 0;
    if (cudaHostAlloc(&buffer.memory, bytes, cudaHostAllocDefault) == cudaSuccess) {
        buffer.bytes = bytes;
    } else {
        buffer.memory = nullptr;
        cudaGetLastError();
    }
    return buffer.bytes >= bytes;
}

// An event that was never recorded is done.
void Staging::await(Pinned& buffer) {
    if (cudaEventQuery(buffer.copied) == cudaSuccess) return;
    cudaGetLastError();  // that it isn't done is no error, and not for the next kernel to find
    ++waits_;
    check(cudaEventSynchronize(buffer.copied), "waiting for a copy");
}

void Staging::upload(void* to, const void* from, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes; at += kHalf) {
        Pinned& half = halves_[turn_++ % 2];
        const std::size_t size = std::min(kHalf, bytes - at);
        await(half);
        std::memcpy(half.memory, static_cast<const char*>(from) + at, size);
        check(cudaMemcpyAsync(static_cast<char*>(to) + at, half.memory, size, cudaMemcpyHostToDevice, stream_),
              "copying to the GPU");
        check(cudaEventRecord(half.copied, stream_), "recording an event");
    }
}

// Through the buffer for results, which grows to what they take; through a half where no more memory can be pinned.
// What was uploaded through a half has been read when the stream comes here.
void Staging::download(void* to, const void* from, std::size_t bytes) {
    const bool is_large = bytes > kHalf && pin(result_, std::min(bytes, kMostPinned));
    Pinned& through = is_large ? result_ : halves_[turn_++ % 2];
    for (std::size_t at = 0; at < bytes; at += through.bytes) {
        const std::size_t size = std::min(through.bytes, bytes - at);
        check(
            cudaMemcpyAsync(through.memory, static_cast<const char*>(from) + at, size, cudaMemcpyDeviceToHost, stream_),
            "copying from the GPU");
        check(cudaEventRecord(through.copied, stream_), "recording an event");
        await(through);
        const char* const source = static_cast<const char*>(through.memory);
        char* const target = static_cast<char*>(to) + at;
        parallel_for(static_cast<std::int64_t>(size), kGrain, kPage, kThreads,
                     [&](std::int64_t begin, std::int64_t end) {
                         std::memcpy(target + begin, source + begin, static_cast<std::size_t>(end - begin));
                     });
    }
}

}  // namespace x2ct::cuda
