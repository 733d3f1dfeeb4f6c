// The one file that nvcc compiles: every piece of work, a thread an index.
#include "devices/cuda/failure.h"
#include "devices/cuda/jobs.h"

namespace x2ct::cuda {
namespace {

constexpr int kThreads = 256;

template <typename Work>
__global__ void __launch_bounds__(kThreads) each(const __grid_constant__ Work work, std::int64_t count) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i < count) work(i);
}

template <typename Work>
void launch_each(const Work& work, std::int64_t count, cudaStream_t stream) {
    if (count == 0) return;
    each<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, stream>>>(work, count);
    check(cudaGetLastError(), "starting a kernel");
}

template <typename Work>
void load() {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, each<Work>), "loading the kernels");
}

}  // namespace

void load_kernels() {
    load<TableRow>();
    load<OneRow>();
    load<Box>();
}

void launch(const TableRow& work, std::int64_t count, cudaStream_t stream) { launch_each(work, count, stream); }
void launch(const OneRow& work, std::int64_t count, cudaStream_t stream) { launch_each(work, count, stream); }
void launch(const Box& work, std::int64_t count, cudaStream_t stream) { launch_each(work, count, stream); }

}  // namespace x2ct::cuda
