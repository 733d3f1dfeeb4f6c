#include "devices/cuda/clock.h"

#include <algorithm>

#include "devices/cuda/failure.h"

namespace x2ct::cuda {
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
