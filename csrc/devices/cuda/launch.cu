// The one file that nvcc compiles: every piece of work, a thread an index.
#include <variant>

#include "devices/cuda/cuda.h"
#include "devices/cuda/launch.h"

namespace x2ct::cuda {
namespace {

// Of a block, and how many blocks at least are to share a multiprocessor's registers; 0 leaves it to the compiler. For
// what gathers along cones it would take more than there are registers for: 64 a thread, and the rest in memory.
template <typename Work>
constexpr int kThreads = 256;
template <typename Work>
constexpr int kBlocks = 0;
template <>
constexpr int kThreads<OneElement<kernels::JosephBackward>> = 128;
template <>
constexpr int kBlocks<OneElement<kernels::JosephBackward>> = 4;

template <typename Work>
__global__ void __launch_bounds__(kThreads<Work>, kBlocks<Work>)
    each(const __grid_constant__ Work work, std::int64_t count) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads<Work> + threadIdx.x;
    if (i < count) work(i);
}

template <typename Work>
void launch_each(const Work& work, std::int64_t count, cudaStream_t stream) {
    if (count == 0) return;
    constexpr int kBlock = kThreads<Work>;
    each<<<static_cast<unsigned>((count + kBlock - 1) / kBlock), kBlock, 0, stream>>>(work, count);
    check(cudaGetLastError(), "starting a kernel");
}

template <typename Work>
void load() {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, each<Work>), "loading the kernels");
}

template <typename... Works>
void load_each(const std::variant<Works...>*) {
    (load<OneElement<Works>>(), ...);
}

}  // namespace

void load_kernels() {
    load<TableRow>();
    load<OneRow>();
    load<Box>();
    load_each(static_cast<const RayKernel::Work*>(nullptr));
}

void launch(const TableRow& work, std::int64_t count, cudaStream_t stream) { launch_each(work, count, stream); }
void launch(const OneRow& work, std::int64_t count, cudaStream_t stream) { launch_each(work, count, stream); }
void launch(const Box& work, std::int64_t count, cudaStream_t stream) { launch_each(work, count, stream); }
void launch(const RayKernel& kernel, cudaStream_t stream) {
    std::visit([stream]<typename Work>(const Work& work) { launch_each(OneElement<Work>{work}, work.count(), stream); },
               kernel.work);
}

}  // namespace x2ct::cuda
