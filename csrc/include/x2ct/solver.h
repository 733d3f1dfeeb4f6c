// How a sampler goes from one noise level to the next: each solver compiles to a table.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "x2ct/table.h"

namespace x2ct {

/// What may be chosen about a solver. The churn is Heun's only (Karras et al. 2022, Algorithm 2); 0 is none.
struct SolverOptions {
    double s_churn = 0;
    double s_min = 0;
    double s_max = std::numeric_limits<double>::infinity();
    double s_noise = 1;
    bool to_zero = true;  ///< add a last step to sigma 0; false stops at the last sigma given
    /// The time and scale that Euler and Heun step in: "sigma", "vp" or "ve" (see moment()). Of the others, those on
    /// the data prediction come out the same in any, and iPNDM is defined in sigma.
    std::string time = "sigma";
};

struct SolverInfo {
    std::string name;
    int order;                           ///< of convergence, in the number of steps; the first steps' is lower
    std::vector<std::string> registers;  ///< volumes that it keeps
    bool stochastic;                     ///< fresh noise in every step: it converges in distribution only
    bool timed;                          ///< knows other times than sigma
};

std::vector<SolverInfo> solvers();

/// The table of `solver` for strictly falling `sigmas` (the last may be 0 already).
///
/// One sigma makes the posterior mean, D(sigma n, sigma), whatever the solver (without churn). Throws InputError.
Table make_table(const std::string& solver, std::vector<double> sigmas, const SolverOptions& options = {});

}  // namespace x2ct
