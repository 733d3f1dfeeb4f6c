// What the CUDA runtime says, as errors of the family.
#pragma once

#include <cuda_runtime_api.h>

namespace x2ct::cuda {

/// Throws OutOfMemory, MissingRuntime or Error that says what was being done, unless all is well.
void check(cudaError_t status, const char* doing);

}  // namespace x2ct::cuda
