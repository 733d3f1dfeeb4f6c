// The row makers: sigmas are the whole way, strictly falling, the end included.
#pragma once

#include <vector>

#include "x2ct/solver.h"

namespace x2ct {

Table euler(const std::vector<double>& sigmas);
Table heun(const std::vector<double>& sigmas, const SolverOptions& options);
Table dpmpp_2m(const std::vector<double>& sigmas);

}  // namespace x2ct
