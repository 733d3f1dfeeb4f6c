// devices/cuda/launch.cu on the host: the same functions of the same indices, put off until somebody waits.
#include <variant>

#include "devices/cuda/cuda.h"
#include "devices/cuda/launch.h"

namespace x2ct::cuda {
namespace {

template <typename Work>
void launch_each(const Work& work, std::int64_t count, cudaStream_t stream) {
    ++emulated::machine().launches;
    emulated::put(stream, [work, count] {
        for (std::int64_t i = 0; i < count; ++i) work(i);
    });
    check(cudaGetLastError(), "starting a kernel");
}

}  // namespace

void load_kernels() {}

void launch(const TableRow& work, std::int64_t count, cudaStream_t stream) { launch_each(work, count, stream); }
void launch(const OneRow& work, std::int64_t count, cudaStream_t stream) { launch_each(work, count, stream); }
void launch(const Box& work, std::int64_t count, cudaStream_t stream) { launch_each(work, count, stream); }
void launch(const RayKernel& kernel, cudaStream_t stream) {
    ++emulated::machine().ray_kernels[kernel.work.index()];
    std::visit([stream]<typename Work>(const Work& work) { launch_each(OneElement<Work>{work}, work.count(), stream); },
               kernel.work);
}

}  // namespace x2ct::cuda
