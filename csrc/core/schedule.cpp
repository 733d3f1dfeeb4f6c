// core/ is the sampler's mathematics and its one loop: schedules and solvers become a table of coefficients (schedule,
// solver_*, table), the table is run (sampler) with noise that depends on nothing but its address (noise). It knows
// networks and devices by their interfaces only, and no Python.
#include "x2ct/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "core/names.h"
#include "x2ct/consistency.h"
#include "x2ct/error.h"
#include "x2ct/sampling_plan.h"

namespace x2ct {
namespace {

constexpr double kBetaD = 19.9, kBetaMin = 0.1;  // VP's constants in Table 1 of Karras et al. 2022
constexpr int kLevels = 1000;                    // iDDPM's M, C1 and C2 there
constexpr double kC1 = 0.001, kC2 = 0.008;

struct Range {
    int steps;
    double sigma_min, sigma_max, rho;

    double at(int i) const { return static_cast<double>(i) / (steps - 1); }
};

double between(double first, double last, double at) { return first + at * (last - first); }

double edm(const Range& r, int i) {
    return std::pow(between(std::pow(r.sigma_max, 1 / r.rho), std::pow(r.sigma_min, 1 / r.rho), r.at(i)), r.rho);
}

double log_snr(const Range& r, int i) {
    return std::exp(between(std::log(r.sigma_max), std::log(r.sigma_min), r.at(i)));
}

// sigma(t)^2 + 1 = exp(beta_d t^2 / 2 + beta_min t), and its inverse.
double vp_sigma(double t) { return std::sqrt(std::expm1(t * (kBetaD * t / 2 + kBetaMin))); }

double vp_time(double sigma) {
    return (std::sqrt(kBetaMin * kBetaMin + 2 * kBetaD * std::log1p(sigma * sigma)) - kBetaMin) / kBetaD;
}

double vp(const Range& r, int i) { return vp_sigma(between(vp_time(r.sigma_max), vp_time(r.sigma_min), r.at(i))); }

// u_0 .. u_(M-1): u_M = 0, u_(j-1) = sqrt((u_j^2 + 1) / max(alpha_(j-1) / alpha_j, C1) - 1).
std::vector<double> iddpm_levels() {
    const auto alpha = [](int j) {
        const double s = std::sin(std::numbers::pi / 2 * j / (kLevels * (kC2 + 1)));
        return s * s;
    };
    std::vector<double> u(kLevels + 1, 0.0);
    for (int j = kLevels; j > 0; --j) {
        u[j - 1] = std::sqrt((u[j] * u[j] + 1) / std::max(alpha(j - 1) / alpha(j), kC1) - 1);
    }
    u.pop_back();
    return u;
}

double iddpm(const Range& r, int i) {
    static const std::vector<double> levels = iddpm_levels();
    const auto within = [&](double level) { return level >= r.sigma_min && level <= r.sigma_max; };
    const auto first = std::ranges::find_if(levels, within);
    const auto count = std::ranges::count_if(levels, within);
    if (count < r.steps) {
        throw InputError("schedule: steps: found " + std::to_string(r.steps) + ", expected at most " +
                         std::to_string(count) + ", the levels of iddpm between sigma_min and sigma_max");
    }
    return first[std::lround(r.at(i) * static_cast<double>(count - 1))];
}

using Maker = double (*)(const Range&, int);

struct Named {
    const char* name;
    Maker make;
};

constexpr Named kSchedules[] = {
    {"edm", edm}, {"vp", vp}, {"ve", log_snr}, {"iddpm", iddpm}, {"log-snr", log_snr},
};

void check(const Range& r) {
    if (r.steps < 1 || r.steps > 100000) {
        throw InputError("schedule: steps: found " + std::to_string(r.steps) + ", expected 1 to 100000");
    }
    if (!(r.sigma_max > 0) || !std::isfinite(r.sigma_max)) {
        throw InputError("schedule: sigma_max: found " + std::to_string(r.sigma_max) + ", expected a number > 0");
    }
    if (!(r.sigma_min > 0 && r.sigma_min < r.sigma_max)) {
        throw InputError("schedule: sigma_min: found " + std::to_string(r.sigma_min) +
                         ", expected a number between 0 and sigma_max");
    }
    if (!(r.rho >= 1) || !std::isfinite(r.rho)) {
        throw InputError("schedule: rho: found " + std::to_string(r.rho) + ", expected a number >= 1");
    }
}

}  // namespace

std::vector<std::string> schedules() {
    std::vector<std::string> names;
    for (const Named& one : kSchedules) names.emplace_back(one.name);
    return names;
}

std::vector<double> schedule(const std::string& name, int steps, double sigma_min, double sigma_max, double rho) {
    const auto* const found = std::ranges::find(kSchedules, name, &Named::name);
    if (found == std::ranges::end(kSchedules)) throw unknown("schedule", name, schedules());
    const Range range{steps, sigma_min, sigma_max, rho};
    check(range);
    std::vector<double> sigmas(steps);
    for (int i = 1; i + 1 < steps; ++i) sigmas[i] = found->make(range, i);
    sigmas.front() = sigma_max;  // the ends exactly, not through pow or exp
    if (steps > 1) sigmas.back() = sigma_min;
    return sigmas;
}

Moment moment(const std::string& time, double sigma) {
    if (time == "sigma") return {sigma, 1, 1 / sigma, 1 / sigma};
    if (time == "ve") return {sigma * sigma, 1, 1 / (2 * sigma * sigma), 1 / (2 * sigma * sigma)};
    if (time == "vp") {
        // s = 1 / sqrt(1 + sigma^2), s'/s = -beta/2 and sigma'/sigma = beta (1 + sigma^2) / (2 sigma^2).
        const double t = vp_time(sigma), beta = kBetaD * t + kBetaMin, s2 = sigma * sigma;
        return {t, 1 / std::sqrt(1 + s2), beta / (2 * s2), beta * (1 + s2) / (2 * s2)};
    }
    throw InputError("time: found \"" + time + "\", expected sigma, vp or ve");
}

std::string time_of(const std::string& schedule) { return schedule == "vp" || schedule == "ve" ? schedule : "sigma"; }

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
    const bool usual_solver = options.solver.empty() || options.solver == usual.solver;
    const bool usual_levels = plan.schedule == kTuned || (options.schedule.empty() && options.sigmas.empty());
    const auto scale = usual.deviation_scale.find(options.steps.value_or(usual.steps));
    if (scale != usual.deviation_scale.end() && usual_solver && usual_levels && !options.mean && options.churn == 0 &&
        plan.corrected.empty()) {
        plan.deviation_scale = scale->second;
    }
    plan.mirrored = options.mean && usual.mirror && plan.samples == 1 && plan.corrected.empty();
    return plan;
}

}  // namespace x2ct
