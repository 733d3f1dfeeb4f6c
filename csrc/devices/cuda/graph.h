// Work that was recorded once, to be replayed.
#pragma once

#include <cuda_runtime_api.h>
#include <functional>
#include <span>
#include <vector>

#include "x2ct/device.h"

namespace x2ct::cuda {

/// A recorded piece of work. Moves, is not copied.
class Graph {
  public:
    /// What `work` queues on `stream`, recorded and not done. What `work` throws comes out.
    Graph(cudaStream_t stream, const std::function<void()>& work);
    Graph(Graph&& other) noexcept;
    Graph& operator=(Graph&&) = delete;
    ~Graph();

    void launch(cudaStream_t stream) const;

  private:
    cudaGraphExec_t executable_ = nullptr;
};

// The events of a run's rows: where each begins and ends, and where its kernel does.

class Clock {
  public:
    explicit Clock(cudaStream_t stream) : stream_(stream) {}
    Clock(const Clock&) = delete;
    Clock& operator=(const Clock&) = delete;
    ~Clock();

    /// Before a run of these rows.
    void begin(std::span<const RowKernel> rows);

    // Queued, or recorded with the work around them.
    void row_begins(int row, bool recording) { mark(rows_[row].begin, recording); }
    void row_ends(int row, bool recording) { mark(rows_[row].end, recording); }
    void kernel_begins(int row, bool recording) { mark(rows_[row].kernel_begin, recording); }
    void kernel_ends(int row, bool recording) { mark(rows_[row].kernel_end, recording); }

    /// A row has been queued: from here on it can be waited for.
    void queued(int row);
    void wait(int row);

    /// Of the rows that were queued. Nothing may be queued any more.
    DeviceTimes times() const;

  private:
    struct Row {
        cudaEvent_t begin = nullptr, end = nullptr, kernel_begin = nullptr, kernel_end = nullptr, done = nullptr;
    };

    void mark(cudaEvent_t event, bool recording);

    cudaStream_t stream_;
    std::vector<Row> rows_;
    std::vector<int> queued_;
    std::vector<int> with_kernel_;
};

}  // namespace x2ct::cuda
