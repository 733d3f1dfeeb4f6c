#include "x2ct/solver.h"

#include <cmath>

#include "core/names.h"
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

void check(const SolverInfo& solver, const SolverOptions& options) {
    if (!(options.s_churn >= 0) || !std::isfinite(options.s_churn))
        throw InputError("churn: found a number that is not >= 0");
    if (options.s_churn > 0 && (solver.name != "heun" || options.time != "sigma")) {
        throw InputError("churn: found " + std::to_string(options.s_churn) + " for " + solver.name + " in " +
                         options.time + ", expected 0; only heun churns, in sigma");
    }
    if (!(options.s_noise > 0) || !std::isfinite(options.s_noise))
        throw InputError("s_noise: found a number that is not > 0");
    if (!(options.s_min <= options.s_max)) throw InputError("s_min: found more than s_max");
    if (options.time != "sigma" && !solver.timed) {
        throw InputError("time: found \"" + options.time + "\" for " + solver.name +
                         ", expected sigma; only euler and heun step in another");
    }
}

using Sigmas = std::vector<double>;

struct Entry {
    SolverInfo info;
    Table (*make)(const Sigmas&, const SolverOptions&);
};

const std::vector<Entry>& entries() {
    static const std::vector<Entry> all = {
        {{"euler", 1, {"y", "D"}, false, true}, euler},
        {{"heun", 2, {"x", "y", "D"}, false, true}, heun},
        {{"dpmpp-2m", 2, {"y", "D", "H1"}, false, false},
         [](const Sigmas& s, const SolverOptions&) { return dpmpp(s, 2); }},
        {{"dpmpp-3m", 3, {"y", "D", "H1", "H2"}, false, false},
         [](const Sigmas& s, const SolverOptions&) { return dpmpp(s, 3); }},
        {{"dpmpp-2m-sde", 2, {"y", "D", "H1"}, true, false},
         [](const Sigmas& s, const SolverOptions&) { return dpmpp_2m_sde(s); }},
        {{"unipc-2", 3, {"x", "y", "D", "H1", "H2"}, false, false},
         [](const Sigmas& s, const SolverOptions&) { return unipc(s, 2); }},
        {{"unipc-3", 4, {"x", "y", "D", "H1", "H2", "H3"}, false, false},
         [](const Sigmas& s, const SolverOptions&) { return unipc(s, 3); }},
        {{"ipndm-2", 2, {"y", "D", "H1"}, false, false},
         [](const Sigmas& s, const SolverOptions&) { return ipndm(s, 2); }},
        {{"ipndm-3", 3, {"y", "D", "H1", "H2"}, false, false},
         [](const Sigmas& s, const SolverOptions&) { return ipndm(s, 3); }},
        {{"ipndm-4", 4, {"y", "D", "H1", "H2", "H3"}, false, false},
         [](const Sigmas& s, const SolverOptions&) { return ipndm(s, 4); }},
    };
    return all;
}

}  // namespace

std::vector<SolverInfo> solvers() {
    std::vector<SolverInfo> infos;
    for (const Entry& entry : entries()) infos.push_back(entry.info);
    return infos;
}

Table make_table(const std::string& solver, std::vector<double> sigmas, const SolverOptions& options) {
    if (options.to_zero && !sigmas.empty() && sigmas.back() != 0) sigmas.push_back(0);
    check(sigmas);
    std::vector<std::string> known;
    for (const Entry& entry : entries()) {
        if (entry.info.name == solver) {
            check(entry.info, options);
            return entry.make(sigmas, options);
        }
        known.push_back(entry.info.name);
    }
    throw unknown("solver", solver, known);
}

}  // namespace x2ct
