#include "devices/cuda/failure.h"

#include <string>

#include "x2ct/error.h"

namespace x2ct::cuda {

void check(cudaError_t status, const char* doing) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // what can be forgotten is, so that the next call doesn't find it
    const std::string line = std::string("cuda: ") + doing + ": " + cudaGetErrorString(status);
    if (status == cudaErrorMemoryAllocation) throw OutOfMemory(line);
    if (status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice) throw MissingRuntime(line);
    throw Error(line);
}

}  // namespace x2ct::cuda
