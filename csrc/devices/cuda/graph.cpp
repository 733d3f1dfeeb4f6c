#include "devices/cuda/graph.h"

#include <utility>

#include "devices/cuda/failure.h"

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

}  // namespace x2ct::cuda
