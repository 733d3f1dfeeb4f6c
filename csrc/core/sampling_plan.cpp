#include "x2ct/sampling_plan.h"

#include <algorithm>
#include <utility>

#include "x2ct/consistency.h"
#include "x2ct/error.h"
#include "x2ct/schedule.h"
#include "x2ct/solver.h"

namespace x2ct {
namespace {

constexpr const char* kTuned = "tuned";

struct Levels {
    std::string schedule;
    std::vector<double> sigmas;
};

Levels explicit_levels(const SampleOptions& options) {
    if (!options.schedule.empty()) throw InputError("schedule: found a name beside noise levels, expected one of them");
    const int count = static_cast<int>(std::min<std::size_t>(options.sigmas.size(), kMaxSteps + 1));
    if (options.steps && *options.steps != count) {
        throw InputError("steps: found " + std::to_string(*options.steps) + ", expected " + std::to_string(count) +
                         ", as many as noise levels");
    }
    if (count > kMaxSteps) {
        throw InputError("sigmas: found more than " + std::to_string(kMaxSteps) + ", expected as many at most");
    }
    return {"explicit", options.sigmas};
}

std::string tuned_counts(const Bundle::Diffusion& usual) {
    std::string counts;
    for (const auto& [count, sigmas] : usual.schedules) counts += (counts.empty() ? "" : ", ") + std::to_string(count);
    return counts.empty() ? "no number of steps" : counts;
}

Levels levels(const Bundle::Diffusion& usual, const SampleOptions& options) {
    if (!options.sigmas.empty()) return explicit_levels(options);
    const int steps = options.steps.value_or(usual.steps);
    if (steps < 1 || steps > kMaxSteps) {
        throw InputError("steps: found " + std::to_string(steps) + ", expected 1 to " + std::to_string(kMaxSteps));
    }
    const auto tuned = usual.schedules.find(steps);
    const bool wants_tuned = options.schedule == kTuned;
    if (tuned != usual.schedules.end() && (options.schedule.empty() || wants_tuned)) return {kTuned, tuned->second};
    if (wants_tuned) {
        throw InputError("schedule: found tuned for " + std::to_string(steps) +
                         " steps, expected a number of steps that the model is tuned for: " + tuned_counts(usual) +
                         "; run x2ct tune");
    }
    const std::string& name = options.schedule.empty() ? usual.schedule : options.schedule;
    return {name, schedule(name, steps, usual.sigma_min, usual.sigma_max)};
}

SamplingPlan planned(const Bundle::Diffusion& usual, const SampleOptions& options) {
    if (options.mean) {
        if (options.steps || !options.solver.empty() || !options.schedule.empty() || !options.sigmas.empty() ||
            options.churn != 0) {
            throw InputError("mean: found steps, a solver, a schedule or churn, expected none: it is one evaluation");
        }
        // One Euler step from sigma_max to 0 is D(sigma_max n, sigma_max), exactly: its weight on x is 0.
        return {make_table("euler", {usual.sigma_max}), "posterior mean", {usual.sigma_max}, {}};
    }
    const std::string& name = options.solver.empty() ? usual.solver : options.solver;
    Levels visited = levels(usual, options);
    SolverOptions stepping;
    stepping.s_churn = options.churn;
    for (const SolverInfo& one : solvers()) {
        if (one.name == name && one.timed) stepping.time = time_of(visited.schedule);
    }
    Table table = make_table(name, visited.sigmas, stepping);
    return {std::move(table), std::move(visited.schedule), std::move(visited.sigmas), {}};
}

}  // namespace

SamplingPlan sampling_plan(const Bundle::Diffusion& usual, const SampleOptions& options) {
    if (options.samples < 1 || options.samples > kMaxSamples) {
        throw InputError("samples: found " + std::to_string(options.samples) + ", expected 1 to " +
                         std::to_string(kMaxSamples));
    }
    if (options.gamma && options.consistency == "off") {
        throw InputError("gamma: found a strength without data consistency, expected consistency with it");
    }
    SamplingPlan plan = planned(usual, options);
    plan.samples = options.samples;
    plan.gamma = options.gamma.value_or(kUsualGamma);
    if (!(plan.gamma >= 0 && plan.gamma <= kMaxGamma)) {
        throw InputError("gamma: found " + std::to_string(plan.gamma) + ", expected 0 to 1e6");
    }
    plan.corrected = pulled_after(options.consistency, plan.table.evaluations());
    if (plan.gamma == 0) plan.corrected.clear();
    return plan;
}

}  // namespace x2ct
