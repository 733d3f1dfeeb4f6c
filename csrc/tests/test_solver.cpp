// Solvers as tables: exact where they must be, of their order elsewhere, with no register too many.
#include <algorithm>

#include "check.h"
#include "core/solvers.h"
#include "reference.h"
#include "x2ct/error.h"
#include "x2ct/schedule.h"

namespace {

using reference::Gaussian;
using x2ct::make_table;
using x2ct::schedule;
using x2ct::SolverOptions;

// Those on the ODE, for which noise is the start only.
std::vector<x2ct::SolverInfo> flows() {
    auto all = x2ct::solvers();
    std::erase_if(all, [](const auto& info) { return info.stochastic; });
    return all;
}

double unit_noise(std::uint32_t) { return 1; }

// Data in one point: every path ends there, whatever the steps.
void constant_denoiser_is_exact() {
    for (const auto& info : x2ct::solvers()) {
        for (const int steps : {1, 2, 3, 7}) {
            const auto table = make_table(info.name, schedule("edm", steps, 0.03, 20));
            CHECK_CLOSE(reference::run(table, [](double, double) { return 0.7; }, unit_noise), 0.7, 1e-12);
        }
    }
}

// The same down to a level above 0: x - D falls in proportion to sigma, which is a straight line for each.
void constant_denoiser_is_exact_on_the_way() {
    SolverOptions options;
    options.to_zero = false;
    for (const auto& info : flows()) {
        const auto table = make_table(info.name, schedule("log-snr", 5, 0.1, 20), options);
        const double x = reference::run(table, [](double, double) { return 0.7; }, unit_noise);
        CHECK_CLOSE(x, 0.7 + (20 - 0.7) * 0.1 / 20, 1e-12);
    }
}

// The start is far up, where D barely moves: the first steps, of lower order, then cost nothing.
void order_of_convergence() {
    const reference::Mixture data{0.3};
    const double start = 2000, end = 0.05, x = 0.4 * start;
    SolverOptions options;
    options.to_zero = false;
    for (const auto& info : flows()) {
        const auto error = [&](int steps) {
            const auto table = make_table(info.name, schedule("log-snr", steps + 1, end, start), options);
            return std::abs(reference::run(table, data, [](std::uint32_t) { return 0.4; }) - data.flow(x, start, end));
        };
        const int steps = info.order > 3 ? 256 : 1024;
        CHECK_CLOSE(std::log2(error(steps) / error(2 * steps)), info.order, 0.2);
    }
}

// The same in the other times of Table 1 of Karras et al. 2022; what comes out is in the data's unit.
void order_of_convergence_in_other_times() {
    const Gaussian data{0.3, 0.5};
    for (const std::string time : {"vp", "ve"}) {
        const SolverOptions options{.to_zero = false, .time = time};
        for (const auto& info : flows()) {
            if (!info.timed) continue;
            const auto error = [&](int steps) {
                const auto table = make_table(info.name, schedule(time, steps + 1, 0.05, 20), options);
                return std::abs(reference::run(table, data, unit_noise) - data.flow(20, 20, 0.05));
            };
            CHECK_CLOSE(std::log2(error(512) / error(1024)), info.order, 0.1);
        }
    }
}

// The SDE's steps have no path to follow but a distribution to end in: for Gaussian data that of the result is known,
// and the result, being linear in the noises, tells its own.
void order_of_convergence_in_distribution() {
    const Gaussian data{0.3, 0.5};
    const double start = 2000, end = 0.05;
    SolverOptions options;
    options.to_zero = false;
    const auto error = [&](int steps) {
        const auto table = make_table("dpmpp-2m-sde", schedule("log-snr", steps + 1, end, start), options);
        const double mean = reference::run(table, data, [](std::uint32_t) { return 0; });
        double variance = 0;
        for (std::uint32_t draw = 0; draw <= static_cast<std::uint32_t>(steps); ++draw) {
            const auto one = [draw](std::uint32_t asked) { return asked == draw ? 1.0 : 0.0; };
            variance += std::pow(reference::run(table, data, one) - mean, 2);
        }
        CHECK_CLOSE(mean, data.mean, 0.01);
        return std::abs(variance - (0.25 + end * end));
    };
    CHECK_CLOSE(std::log2(error(128) / error(256)), 2, 0.1);
}

// One sigma: the posterior mean in one evaluation.
void one_sigma_is_the_posterior_mean() {
    const Gaussian data{0.3, 0.5};
    for (const auto& info : x2ct::solvers()) {
        const auto table = make_table(info.name, {20});
        CHECK(table.evaluations() == 1);
        CHECK_CLOSE(reference::run(table, data, unit_noise), data(20, 20), 1e-15);
        CHECK((table.registers() == std::vector<std::string>{"y", "D"}));
    }
}

void evaluations_and_registers() {
    const auto sigmas = schedule("edm", 6, 0.03, 20);
    CHECK(make_table("heun", sigmas).evaluations() == 11);
    for (const auto& info : x2ct::solvers()) {
        if (info.name != "heun") CHECK(make_table(info.name, sigmas).evaluations() == 6);
    }
    for (const auto& info : x2ct::solvers()) CHECK(make_table(info.name, sigmas).registers() == info.registers);
}

// Karras et al. 2022, Algorithm 2, written out for one voxel.
double algorithm_2(const std::vector<double>& t, const SolverOptions& o, const reference::Denoiser& denoiser,
                   const std::function<double(std::uint32_t)>& noise) {
    const std::size_t n = t.size() - 1;
    double x = t[0] * noise(0);
    for (std::size_t i = 0; i < n; ++i) {
        const bool churns = t[i] >= o.s_min && t[i] <= o.s_max;
        const double gamma = churns ? std::min(o.s_churn / static_cast<double>(n), std::sqrt(2.0) - 1) : 0;
        const double t_hat = t[i] + gamma * t[i];
        const double epsilon = o.s_noise * noise(static_cast<std::uint32_t>(i + 1));
        x += std::sqrt(t_hat * t_hat - t[i] * t[i]) * epsilon;
        const double d = (x - denoiser(x, t_hat)) / t_hat;
        double next = x + (t[i + 1] - t_hat) * d;
        if (t[i + 1] != 0) {
            const double d2 = (next - denoiser(next, t[i + 1])) / t[i + 1];
            next = x + (t[i + 1] - t_hat) * 0.5 * (d + d2);
        }
        x = next;
    }
    return x;
}

void heun_is_algorithm_2() {
    const auto denoiser = [](double y, double sigma) { return std::tanh(y / (0.1 + sigma)); };
    const auto noise = [](std::uint32_t draw) { return std::sin(3.7 * draw + 1); };
    for (const double churn : {0.0, 2.0, 40.0}) {
        const SolverOptions options{.s_churn = churn, .s_min = 0.05, .s_max = 10, .s_noise = 1.003, .to_zero = true};
        auto sigmas = schedule("edm", 8, 0.03, 20);
        const auto table = make_table("heun", sigmas, options);
        sigmas.push_back(0);
        CHECK_CLOSE(reference::run(table, denoiser, noise), algorithm_2(sigmas, options, denoiser, noise), 1e-11);
    }
}

// The first step may churn too: then the run starts from two noises.
void churn_at_the_start() {
    const SolverOptions options{.s_churn = 8, .s_min = 0, .s_max = 100, .s_noise = 1, .to_zero = true};
    const auto table = make_table("heun", {20.0, 1.0}, options);
    CHECK(table.start_noise() > 0);
    const auto noise = [](std::uint32_t draw) { return std::cos(2.1 * draw); };
    const Gaussian data{0.3, 0.5};
    CHECK_CLOSE(reference::run(table, data, noise), algorithm_2({20, 1, 0}, options, data, noise), 1e-12);
}

// Lu et al. 2022, Algorithm 2 in lambda = -ln sigma, for one voxel.
void dpmpp_2m_is_algorithm_2() {
    const auto denoiser = [](double y, double sigma) { return std::tanh(y / (0.1 + sigma)); };
    auto sigmas = schedule("edm", 9, 0.03, 20);
    double x = 20, before = 0, h_before = 0;
    for (std::size_t i = 0; i < sigmas.size(); ++i) {
        const double next = i + 1 < sigmas.size() ? sigmas[i + 1] : 0;
        const double denoised = denoiser(x, sigmas[i]), h = std::log(sigmas[i] / next);
        double prediction = denoised;
        if (i > 0 && next > 0) {
            const double r = h_before / h;
            prediction = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * before;
        }
        x = next / sigmas[i] * x - std::expm1(-h) * prediction;
        before = denoised, h_before = h;
    }
    CHECK_CLOSE(reference::run(make_table("dpmpp-2m", sigmas), denoiser, unit_noise), x, 1e-12);
}

// On equal steps iPNDM's weights are the published ones, Adams and Bashforth's.
void ipndm_is_adams_bashforth() {
    const auto row = make_table("ipndm-4", {5, 4, 3, 2, 1}, {.to_zero = false}).rows().back();
    const double wanted[] = {55, -59, 37, -9}, wanted_third[] = {23, -16, 5};
    for (int k = 0; k < 4; ++k) CHECK_CLOSE(row.x.h[k], -wanted[k] / 24, 1e-14);
    const auto third = make_table("ipndm-3", {4, 3, 2, 1}, {.to_zero = false}).rows().back();
    for (int k = 0; k < 3; ++k) CHECK_CLOSE(third.x.h[k], -wanted_third[k] / 12, 1e-14);
}

// Tiny and huge steps: the weights neither cancel nor overflow.
void weights_of_any_step() {
    for (const double h : {1e-9, 1e-3, 0.999, 1.001, 4.0, 300.0}) {
        const auto w = x2ct::exponential_weights(h, {0, -1, -2});
        CHECK_CLOSE((w[0] + w[1] + w[2]) / -std::expm1(-h), 1, 1e-12);
        // integral of h e^(-h (1 - u)) u, which is h/2 - h^2/6 + h^3/24 for a small h
        const double first = h < 0.01 ? h / 2 - h * h / 6 + h * h * h / 24 : 1 + std::expm1(-h) / h;
        CHECK_CLOSE((-w[1] - 2 * w[2]) / first, 1, 1e-10);
    }
}

void refusals() {
    CHECK_THROWS(x2ct::InputError, make_table("rk4", {20, 1}));
    CHECK_THROWS(x2ct::InputError, make_table("euler", {}));
    CHECK_THROWS(x2ct::InputError, make_table("euler", {1, 20}));
    CHECK_THROWS(x2ct::InputError, make_table("euler", {20, 20}));
    CHECK_THROWS(x2ct::InputError, make_table("euler", {20, 0, 0}));
    CHECK_THROWS(x2ct::InputError, make_table("euler", {20, -1}));
    CHECK_THROWS(x2ct::InputError, make_table("euler", {NAN}));
    CHECK_THROWS(x2ct::InputError, make_table("euler", {0}));
    CHECK_THROWS(x2ct::InputError, make_table("dpmpp-2m", {20, 1}, {.s_churn = 1}));
    CHECK_THROWS(x2ct::InputError, make_table("heun", {20, 1}, {.s_churn = -1}));
    CHECK_THROWS(x2ct::InputError, make_table("euler", {20}, {.to_zero = false}));
    CHECK_THROWS(x2ct::InputError, make_table("euler", {20, 1}, {.time = "snr"}));
    CHECK_THROWS(x2ct::InputError, make_table("dpmpp-2m", {20, 1}, {.time = "vp"}));
    CHECK_THROWS(x2ct::InputError, make_table("heun", {20, 1}, {.s_churn = 1, .time = "vp"}));
}

void describe_names_every_row() {
    const std::string text = make_table("dpmpp-2m", schedule("log-snr", 4, 0.03, 20)).describe();
    CHECK(text.find("dpmpp-2m, 4 evaluations, registers y D H1") == 0);
    CHECK(text.find("start: y = 20 n0") != std::string::npos);
    CHECK(text.find("3: sigma 0.03: H0 = D; x' = H0") != std::string::npos);
}

}  // namespace

TESTS(constant_denoiser_is_exact, constant_denoiser_is_exact_on_the_way, order_of_convergence,
      order_of_convergence_in_other_times, order_of_convergence_in_distribution, one_sigma_is_the_posterior_mean,
      evaluations_and_registers, heun_is_algorithm_2, churn_at_the_start, dpmpp_2m_is_algorithm_2,
      ipndm_is_adams_bashforth, weights_of_any_step, refusals, describe_names_every_row)
