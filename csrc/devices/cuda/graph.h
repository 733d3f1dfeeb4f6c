// Work that was recorded once, to be replayed.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

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

}  // namespace x2ct::cuda
