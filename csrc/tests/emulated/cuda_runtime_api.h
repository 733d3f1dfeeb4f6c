// As much of the CUDA runtime as the CUDA device uses, on the host: for tests of the device where there is no GPU.
//
// A stream is a list of work that has been put off: nothing of it happens before somebody waits, so that a test sees
// what reads too early and what waits without need. Recording puts work into a graph instead, and is spoilt by what may
// not be done meanwhile: allocating, freeing, waiting, asking; and takes the host so long that the GPU idles, which its
// clock shows. An error is remembered until cudaGetLastError is asked. Memory is the host's, filled with NaN; small
// pieces of a size come at falling addresses, as a driver may hand them out. One thread only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNotReady = 600,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
};
enum { cudaStreamNonBlocking = 1, cudaHostAllocDefault = 0 };
enum { cudaEventDefault = 0, cudaEventDisableTiming = 2 };
enum { cudaEventRecordDefault = 0, cudaEventRecordExternal = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor };

struct cudaDeviceProp {
    char name[64];
    int major, minor;
    std::size_t totalGlobalMem;
};

namespace emulated {

using Work = std::function<void()>;

constexpr double kRecording = 1000;  // of the clock, of which a piece of work takes 1

struct Event {
    bool timed = true;
    std::int64_t asked = 0, done = 0;  // how often its record was queued, and happened
    double at = 0;
};
struct Graph {
    std::vector<Work> work;
};
struct Stream {
    std::deque<Work> queue;
    Graph* recording = nullptr;
    bool spoilt = false;  // the recording
};

/// What the tests set and look at.
struct Machine {
    cudaError_t count_status = cudaSuccess;
    int gpus = 1, driver = 13000, capability = 9;
    std::size_t bytes = std::size_t{1} << 30;
    std::map<void*, std::size_t> memory;
    std::size_t taken = 0;
    int allocations = 0, pins = 0, frees = 0, waits = 0, launches = 0, graphs = 0, replays = 0, uploads = 0,
        downloads = 0;
    std::size_t uploaded = 0, downloaded = 0;  // bytes
    std::map<std::size_t, int> ray_kernels;    // launches, by the kind of their work
    double clock = 0;
    cudaError_t last_error = cudaSuccess;
};
inline Machine& machine() {
    static Machine one;
    return one;
}

/// What a call returns, remembered where it is an error.
inline cudaError_t said(cudaError_t status) {
    if (status != cudaSuccess) machine().last_error = status;
    return status;
}

inline void put(Stream* stream, Work work) {
    if (stream->recording != nullptr) {
        stream->recording->work.push_back(std::move(work));
    } else {
        stream->queue.push_back(std::move(work));
    }
}

inline void run_one(Stream* stream) {
    Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    machine().clock += 1;
    work();
}

inline std::vector<Stream*>& streams() {
    static std::vector<Stream*> all;
    return all;
}

/// Whether a stream records, which what is asked for now spoils.
inline bool spoils() {
    bool spoilt = false;
    for (Stream* stream : streams()) {
        if (stream->recording != nullptr) spoilt = stream->spoilt = true;
    }
    return spoilt;
}

struct Free {
    void operator()(char* memory) const { std::free(memory); }
};
using Piece = std::unique_ptr<char, Free>;

/// Memory of a size and 512 bytes more: of several pieces the one that lies highest.
inline char* piece_of(std::size_t bytes) {
    constexpr std::size_t kSmall = 64 << 10, kPieces = 16;
    static std::map<std::size_t, std::vector<Piece>> ready;
    auto& pieces = ready[bytes];
    while (pieces.size() < (bytes <= kSmall ? kPieces : 1)) {
        pieces.emplace_back(static_cast<char*>(std::aligned_alloc(512, (bytes + 1023) / 512 * 512)));
        if (pieces.back() == nullptr) return nullptr;
    }
    const auto highest = std::ranges::max_element(pieces);
    char* const piece = highest->release();
    pieces.erase(highest);
    return piece;
}

}  // namespace emulated

using cudaStream_t = emulated::Stream*;
using cudaEvent_t = emulated::Event*;
using cudaGraph_t = emulated::Graph*;
using cudaGraphExec_t = emulated::Graph*;

inline cudaError_t cudaGetLastError() { return std::exchange(emulated::machine().last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t status) {
    return status == cudaErrorMemoryAllocation ? "out of memory" : "an error";
}
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = emulated::machine().gpus;
    return emulated::said(emulated::machine().count_status);
}
inline cudaError_t cudaDriverGetVersion(int* version) {
    *version = emulated::machine().driver;
    return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int index) {
    return emulated::said(index < emulated::machine().gpus ? cudaSuccess : cudaErrorInvalidDevice);
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    *properties = {"Emulated", emulated::machine().capability, 0, emulated::machine().bytes};
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = emulated::machine().capability;
    return cudaSuccess;
}

inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
    auto& machine = emulated::machine();
    if (emulated::spoils()) return emulated::said(cudaErrorStreamCaptureUnsupported);
    if (machine.taken + bytes > machine.bytes) return emulated::said(cudaErrorMemoryAllocation);
    // No more than is promised: a multiple of 256 bytes that is none of 512.
    auto* const whole = emulated::piece_of(bytes);
    if (whole == nullptr) return emulated::said(cudaErrorMemoryAllocation);
    *memory = whole + 256;
    std::fill_n(static_cast<float*>(*memory), bytes / sizeof(float), std::numeric_limits<float>::quiet_NaN());
    machine.memory[*memory] = bytes;
    machine.taken += bytes;
    ++machine.allocations;
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (emulated::spoils()) return emulated::said(cudaErrorStreamCaptureUnsupported);
    ++emulated::machine().waits;
    while (!stream->queue.empty()) emulated::run_one(stream);
    return cudaSuccess;
}
// Waits for the whole GPU, as the real one does.
inline cudaError_t cudaFree(void* memory) {
    auto& machine = emulated::machine();
    if (emulated::spoils()) return emulated::said(cudaErrorStreamCaptureUnsupported);
    for (auto* stream : emulated::streams()) cudaStreamSynchronize(stream);
    machine.taken -= machine.memory[memory];
    machine.memory.erase(memory);
    ++machine.frees;
    std::free(static_cast<char*>(memory) - 256);
    return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    *total = emulated::machine().bytes;
    *free = *total - emulated::machine().taken;
    return cudaSuccess;
}
inline cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
    if (emulated::spoils()) return emulated::said(cudaErrorStreamCaptureUnsupported);
    ++emulated::machine().pins;
    *memory = std::malloc(bytes);
    return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* memory) {
    if (emulated::spoils()) return emulated::said(cudaErrorStreamCaptureUnsupported);
    std::free(memory);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t stream) {
    auto& machine = emulated::machine();
    ++(kind == cudaMemcpyHostToDevice ? machine.uploads : machine.downloads);
    (kind == cudaMemcpyHostToDevice ? machine.uploaded : machine.downloaded) += bytes;
    emulated::put(stream, [=] { std::memcpy(to, from, bytes); });
    return cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new emulated::Stream;
    emulated::streams().push_back(*stream);
    return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    std::erase(emulated::streams(), stream);
    delete stream;
    return cudaSuccess;
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    *event = new emulated::Event{flags != cudaEventDisableTiming};
    return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    const bool external = flags == cudaEventRecordExternal;
    if (external != (stream->recording != nullptr)) return emulated::said(cudaErrorInvalidValue);
    // To wait for an event that a graph records is no wait before the graph has come to it.
    if (!external) ++event->asked;
    emulated::put(stream, [event, external] {
        if (!external) ++event->done;
        event->at = emulated::machine().clock;
    });
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}
inline cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (emulated::spoils()) return emulated::said(cudaErrorStreamCaptureUnsupported);
    return emulated::said(event->done == event->asked ? cudaSuccess : cudaErrorNotReady);
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (emulated::spoils()) return emulated::said(cudaErrorStreamCaptureUnsupported);
    ++emulated::machine().waits;
    for (auto* stream : emulated::streams()) {
        while (event->done < event->asked && !stream->queue.empty()) emulated::run_one(stream);
    }
    return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
    if (!from->timed || !to->timed || cudaEventQuery(from) != cudaSuccess || cudaEventQuery(to) != cudaSuccess) {
        return emulated::said(cudaErrorInvalidValue);
    }
    *milliseconds = static_cast<float>(to->at - from->at);
    return cudaSuccess;
}

inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    stream->recording = new emulated::Graph;
    stream->spoilt = false;
    return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    *graph = std::exchange(stream->recording, nullptr);
    emulated::put(stream, [] { emulated::machine().clock += emulated::kRecording; });
    if (!stream->spoilt) return cudaSuccess;
    delete std::exchange(*graph, nullptr);
    return emulated::said(cudaErrorStreamCaptureInvalidated);
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, std::uint64_t) {
    *executable = new emulated::Graph(*graph);
    ++emulated::machine().graphs;
    return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    delete executable;
    return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    ++emulated::machine().replays;
    for (const auto& work : executable->work) emulated::put(stream, work);
    return cudaSuccess;
}
