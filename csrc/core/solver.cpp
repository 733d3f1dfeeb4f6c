#include "x2ct/solver.h"

#include <cmath>

#include "solvers.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

void check(const std::vector<double>& sigmas) {
    for (std::size_t i = 0; i < sigmas.size(); ++i) {
        const bool last = i + 1 == sigmas.size();
        const bool falls = i == 0 || sigmas[i] < sigmas[i - 1];
        if (!std::isfinite(sigmas[i]) || !falls || sigmas[i] < 0 || (sigmas[i] == 0 && !last)) {
            throw InputError("sigmas: found " + std::to_string(sigmas[i]) + " at position " + std::to_string(i) +
                             ", expected strictly falling numbers > 0 (a last 0 is allowed)");
        }
    }
    if (sigmas.size() < 2) throw InputError("sigmas: found too few, expected a start above 0 and an end");
}

void check(const std::string& solver, const SolverOptions& options) {
    if (!(options.s_churn >= 0) || !std::isfinite(options.s_churn))
        throw InputError("churn: found a number that is not >= 0");
    if (options.s_churn > 0 && solver != "heun") {
        throw InputError("churn: found " + std::to_string(options.s_churn) + " for " + solver +
                         ", expected 0; only heun churns");
    }
    if (!(options.s_noise > 0) || !std::isfinite(options.s_noise))
        throw InputError("s_noise: found a number that is not > 0");
    if (!(options.s_min <= options.s_max)) throw InputError("s_min: found more than s_max");
}

}  // namespace

std::vector<SolverInfo> solvers() {
    return {{"euler", 1, {"y", "D"}}, {"heun", 2, {"x", "y", "D"}}, {"dpmpp-2m", 2, {"y", "D", "H1"}}};
}

Table make_table(const std::string& solver, std::vector<double> sigmas, const SolverOptions& options) {
    if (options.to_zero && !sigmas.empty() && sigmas.back() != 0) sigmas.push_back(0);
    check(sigmas);
    check(solver, options);
    if (solver == "euler") return euler(sigmas);
    if (solver == "heun") return heun(sigmas, options);
    if (solver == "dpmpp-2m") return dpmpp_2m(sigmas);
    throw InputError("solver: found \"" + solver + "\", expected euler, heun or dpmpp-2m");
}

}  // namespace x2ct
