// Which noise levels a sampler visits.
#pragma once

#include <string>
#include <vector>

namespace x2ct {

/// `steps` noise levels from sigma_max down to sigma_min, in units of x (the table maker adds the final 0).
///
///   "edm"      sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho
///              (Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", eq. 5)
///   "log-snr"  ln sigma falls in equal steps (uniform in lambda = -ln sigma, Lu et al. 2022, DPM-Solver++)
///
/// One step is {sigma_max}. Throws InputError for an unknown name or values that make no schedule.
std::vector<double> schedule(const std::string& name, int steps, double sigma_min, double sigma_max, double rho = 7.0);

/// The names that schedule() knows.
std::vector<std::string> schedules();

}  // namespace x2ct
