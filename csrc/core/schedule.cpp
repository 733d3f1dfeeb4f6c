// core/ is the sampler's mathematics and its one loop: schedules and solvers become a table of coefficients (schedule,
// solver_*, table), the table is run (sampler) with noise that depends on nothing but its address (noise). It knows
// networks and devices by their interfaces only, and no Python.
#include "x2ct/schedule.h"

#include <cmath>

#include "x2ct/error.h"

namespace x2ct {
namespace {

double edm(double at, double sigma_min, double sigma_max, double rho) {
    const double first = std::pow(sigma_max, 1 / rho), last = std::pow(sigma_min, 1 / rho);
    return std::pow(first + at * (last - first), rho);
}

double log_snr(double at, double sigma_min, double sigma_max) {
    return std::exp(std::log(sigma_max) + at * (std::log(sigma_min) - std::log(sigma_max)));
}

}  // namespace

std::vector<std::string> schedules() { return {"edm", "log-snr"}; }

std::vector<double> schedule(const std::string& name, int steps, double sigma_min, double sigma_max, double rho) {
    const bool is_edm = name == "edm";
    if (!is_edm && name != "log-snr") {
        throw InputError("schedule: found \"" + name + "\", expected edm or log-snr");
    }
    if (steps < 1 || steps > 100000) {
        throw InputError("schedule: steps: found " + std::to_string(steps) + ", expected 1 to 100000");
    }
    if (!(sigma_max > 0) || !std::isfinite(sigma_max)) {
        throw InputError("schedule: sigma_max: found " + std::to_string(sigma_max) + ", expected a number > 0");
    }
    if (!(sigma_min > 0 && sigma_min < sigma_max)) {
        throw InputError("schedule: sigma_min: found " + std::to_string(sigma_min) +
                         ", expected a number between 0 and sigma_max");
    }
    if (!(rho >= 1) || !std::isfinite(rho)) {
        throw InputError("schedule: rho: found " + std::to_string(rho) + ", expected a number >= 1");
    }
    std::vector<double> sigmas(steps);
    for (int i = 1; i < steps; ++i) {
        const double at = static_cast<double>(i) / (steps - 1);
        sigmas[i] = is_edm ? edm(at, sigma_min, sigma_max, rho) : log_snr(at, sigma_min, sigma_max);
    }
    sigmas.front() = sigma_max;  // the ends exactly, not through pow or exp
    if (steps > 1) sigmas.back() = sigma_min;
    return sigmas;
}

}  // namespace x2ct
