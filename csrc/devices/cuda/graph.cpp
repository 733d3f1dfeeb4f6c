#include "devices/cuda/graph.h"

#include <algorithm>
#include <utility>

#include "devices/cuda/cuda.h"

namespace x2ct::cuda {

Graph::Graph(cudaStream_t stream, const std::function<void()>& work) {
    // Of this thread only: another sampler's thread may allocate meanwhile.
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording a step");
    cudaGraph_t graph = nullptr;
    try {
        work();
    } catch (...) {
        cudaStreamEndCapture(stream, &graph);
        if (graph != nullptr) cudaGraphDestroy(graph);
        cudaGetLastError();
        throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "recording a step");
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "making a graph of a step");
}

Graph::Graph(Graph&& other) noexcept : executable_(std::exchange(other.executable_, nullptr)) {}

Graph::~Graph() {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
}

void Graph::launch(cudaStream_t stream) const { check(cudaGraphLaunch(executable_, stream), "replaying a step"); }

namespace {

double seconds(cudaEvent_t from, cudaEvent_t to) {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, from, to), "reading the clock");
    return milliseconds * 1e-3;
}

}  // namespace

Clock::~Clock() {
    for (const Row& row : rows_) {
        for (cudaEvent_t event : {row.begin, row.end, row.kernel_begin, row.kernel_end, row.done}) {
            if (event != nullptr) cudaEventDestroy(event);
        }
    }
}

void Clock::begin(std::span<const RowKernel> rows) {
    while (rows_.size() < rows.size()) {
        Row& row = rows_.emplace_back();
        for (cudaEvent_t* event : {&row.begin, &row.end, &row.kernel_begin, &row.kernel_end}) {
            check(cudaEventCreateWithFlags(event, cudaEventDefault), "making an event");
        }
        check(cudaEventCreateWithFlags(&row.done, cudaEventDisableTiming), "making an event");
    }
    queued_.clear();
    with_kernel_.clear();
    for (const RowKernel& row : rows) {
        if (row.count > 0) with_kernel_.push_back(row.row);
    }
}

// In a recording the event itself becomes a part of the graph, so that each replay records it anew.
void Clock::mark(cudaEvent_t event, bool recording) {
    check(cudaEventRecordWithFlags(event, stream_, recording ? cudaEventRecordExternal : cudaEventRecordDefault),
          "recording an event");
}

// An event of its own: to wait for one that a graph records would not wait where the graph hasn't begun.
void Clock::queued(int row) {
    check(cudaEventRecord(rows_[row].done, stream_), "recording an event");
    queued_.push_back(row);
}

void Clock::wait(int row) { check(cudaEventSynchronize(rows_[row].done), "waiting for a step"); }

DeviceTimes Clock::times() const {
    DeviceTimes times;
    for (std::size_t k = 0; k < queued_.size(); ++k) {
        const Row& row = rows_[queued_[k]];
        times.rows_s += seconds(row.begin, row.end);
        if (k > 0) times.gap_s = std::max(times.gap_s, seconds(rows_[queued_[k - 1]].end, row.begin));
    }
    for (const int row : with_kernel_) times.kernels_s += seconds(rows_[row].kernel_begin, rows_[row].kernel_end);
    return times;
}

}  // namespace x2ct::cuda
