// The row makers: sigmas are the whole way, strictly falling, the end included.
#pragma once

#include <vector>

#include "x2ct/schedule.h"

namespace x2ct {

Table euler(const std::vector<double>& sigmas, const SolverOptions& options);
Table heun(const std::vector<double>& sigmas, const SolverOptions& options);
Table dpmpp(const std::vector<double>& sigmas, int order);
Table dpmpp_2m_sde(const std::vector<double>& sigmas);
Table unipc(const std::vector<double>& sigmas, int order);
Table ipndm(const std::vector<double>& sigmas, int order);

/// DPM-Solver++'s step from sigmas[i] to sigmas[i + 1] out of y and the data predictions H0, H1, ...; `order` of them.
Combination dpmpp_step(const std::vector<double>& sigmas, std::size_t i, int order);

/// Weights w with sum w_k q(u_k) = integral of q over [0, 1] for every polynomial q of a degree below their number.
std::vector<double> polynomial_weights(const std::vector<double>& nodes);

/// The same for the integral of h e^(-h (1 - u)) q(u), the step of an exponential integrator.
std::vector<double> exponential_weights(double h, const std::vector<double>& nodes);

}  // namespace x2ct
