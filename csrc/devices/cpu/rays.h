// What consistency asks of the host.
#pragma once

#include "kernels/ray_kernel.h"

namespace x2ct {

/// In strips, over threads; the result doesn't depend on how many.
void run_rays(const RayKernel& kernel, int threads);

}  // namespace x2ct
