// Which noise levels a sampler visits.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "x2ct/table.h"

namespace x2ct {

/// `steps` noise levels from sigma_max down to sigma_min, in units of x (the table maker adds the final 0).
///
/// The first four are the time steps of Karras et al. 2022 ("Elucidating the design space of diffusion-based generative
/// models", Table 1), each brought to the range sigma_max .. sigma_min:
///
///   "edm"      sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho (eq. 5)
///   "vp"       t falls in equal steps, sigma(t) = sqrt(exp(9.95 t^2 + 0.1 t) - 1)
///   "ve"       t_i = sigma_max^2 (sigma_min^2 / sigma_max^2)^(i/(n-1)), sigma(t) = sqrt(t): the levels of "log-snr"
///   "iddpm"    every k-th of Nichol & Dhariwal's 1000 levels between sigma_max and sigma_min
///   "log-snr"  ln sigma falls in equal steps (uniform in lambda = -ln sigma, Lu et al. 2022, DPM-Solver++)
///
/// One step is {sigma_max}. Throws InputError for an unknown name or values that make no schedule.
std::vector<double> schedule(const std::string& name, int steps, double sigma_min, double sigma_max, double rho = 7.0);

/// The names that schedule() knows.
std::vector<std::string> schedules();

/// Where a solver that steps in time stands at a noise level: dx/dt = s (grow y - pull D(y; sigma)), y = x / s
/// (Karras et al. 2022, eq. 4), with grow = sigma'/sigma + s'/s and pull = sigma'/sigma.
struct Moment {
    double time;
    double scale;  ///< s(t)
    double grow;
    double pull;
};

/// A noise level's moment in the time of "sigma" (sigma(t) = t, s = 1), "vp" or "ve" (Karras et al. 2022, Table 1).
///
/// At sigma 0 only time and scale are finite. Throws InputError for another name.
Moment moment(const std::string& time, double sigma);

/// The time that a schedule was made in: "vp", "ve", or "sigma" for all others.
std::string time_of(const std::string& schedule);

// How a sampler goes from one noise level to the next: each solver compiles to a table.

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
