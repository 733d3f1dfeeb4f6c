// Schedules: the papers' formulas, their ends, and what makes no schedule.
#include "check.h"
#include "x2ct/error.h"
#include "x2ct/schedule.h"

namespace {

using x2ct::schedule;

void edm_is_equation_5() {
    const auto sigmas = schedule("edm", 18, 0.002, 80, 7);
    CHECK(sigmas.size() == 18);
    CHECK(sigmas.front() == 80 && sigmas.back() == 0.002);
    for (int i = 0; i < 18; ++i) {
        const double root = std::pow(80, 1 / 7.0) + i / 17.0 * (std::pow(0.002, 1 / 7.0) - std::pow(80, 1 / 7.0));
        CHECK_CLOSE(sigmas[i] / std::pow(root, 7), 1, 1e-12);
    }
}

void log_snr_falls_by_one_factor() {
    const auto sigmas = schedule("log-snr", 6, 0.03, 20);
    CHECK(sigmas.front() == 20 && sigmas.back() == 0.03);
    for (int i = 0; i + 1 < 6; ++i) CHECK_CLOSE(sigmas[i + 1] / sigmas[i], std::pow(0.03 / 20, 0.2), 1e-12);
}

void rho_1_is_linear() {
    const auto sigmas = schedule("edm", 5, 1, 9, 1);
    for (int i = 0; i < 5; ++i) CHECK_CLOSE(sigmas[i], 9 - 2.0 * i, 1e-12);
}

void one_step_is_the_highest_level() {
    for (const auto& name : x2ct::schedules()) CHECK(schedule(name, 1, 0.03, 20) == std::vector<double>{20});
}

// Table 1 itself: its own range gives its own constants.
void vp_is_table_1() {
    const auto sigma = [](double t) { return std::sqrt(std::exp(0.5 * 19.9 * t * t + 0.1 * t) - 1); };
    const auto sigmas = schedule("vp", 11, sigma(1e-3), sigma(1));
    for (int i = 0; i < 11; ++i) CHECK_CLOSE(sigmas[i] / sigma(1 + i / 10.0 * (1e-3 - 1)), 1, 1e-9);
}

void ve_is_table_1() {
    const auto sigmas = schedule("ve", 7, 0.02, 100);
    for (int i = 0; i < 7; ++i) {
        CHECK_CLOSE(sigmas[i] / std::sqrt(1e4 * std::pow(0.02 * 0.02 / 1e4, i / 6.0)), 1, 1e-12);
    }
}

// As Karras et al. 2022 say of their choice of C1 and M, sigma_max = 80 is about j0 = 8.
void iddpm_is_table_1() {
    double u[1001] = {};
    const auto alpha = [](int j) { return std::pow(std::sin(std::acos(-1.0) / 2 * j / (1000 * 1.008)), 2); };
    for (int j = 1000; j > 0; --j) {
        u[j - 1] = std::sqrt((u[j] * u[j] + 1) / std::fmax(alpha(j - 1) / alpha(j), 0.001) - 1);
    }
    CHECK_CLOSE(u[8], 80, 1);
    const auto sigmas = schedule("iddpm", 18, u[999], u[8]);
    for (int i = 0; i < 18; ++i) {
        const int j = static_cast<int>(std::floor(8 + (999.0 - 8) / 17 * i + 0.5));
        CHECK_CLOSE(sigmas[i] / u[j], 1, 1e-12);
    }
}

void every_schedule_falls_between_its_ends() {
    for (const auto& name : x2ct::schedules()) {
        for (const int steps : {2, 3, 6, 64}) {
            const auto sigmas = schedule(name, steps, 0.2, 20);
            CHECK(static_cast<int>(sigmas.size()) == steps && sigmas.front() == 20 && sigmas.back() == 0.2);
            for (int i = 0; i + 1 < steps; ++i) CHECK(sigmas[i + 1] < sigmas[i]);
        }
    }
}

// dx/dt of x = s(t) y and sigma(t), by differences, along a path on which D is known.
void moments_are_equation_4() {
    const auto level = [](const std::string& time, double t) {  // the sigma of a time
        double low = 1e-3, high = 100;
        for (int i = 0; i < 200; ++i) {
            const double middle = (low + high) / 2;
            (x2ct::moment(time, middle).time < t ? low : high) = middle;
        }
        return low;
    };
    for (const std::string time : {"sigma", "vp", "ve"}) {
        for (const double sigma : {0.1, 1.0, 12.0}) {
            const auto now = x2ct::moment(time, sigma);
            const double t = now.time, step = 1e-5 * t;
            const double before = level(time, t - step), after = level(time, t + step);
            const double rate = std::log(after / before) / (2 * step);
            const double growth =
                std::log(x2ct::moment(time, after).scale / x2ct::moment(time, before).scale) / (2 * step);
            CHECK_CLOSE(now.pull / rate, 1, 1e-6);
            CHECK_CLOSE(now.grow / (rate + growth), 1, 1e-6);
        }
        CHECK(x2ct::moment(time, 0).time == 0 && x2ct::moment(time, 0).scale == 1);
    }
    CHECK_CLOSE(x2ct::moment("vp", 3).scale, 1 / std::sqrt(10.0), 1e-15);
    CHECK(x2ct::time_of("vp") == "vp" && x2ct::time_of("ve") == "ve" && x2ct::time_of("edm") == "sigma");
    CHECK_THROWS(x2ct::InputError, x2ct::moment("snr", 1));
}

void refusals() {
    CHECK_THROWS(x2ct::InputError, schedule("cosine", 4, 0.03, 20));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 0, 0.03, 20));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 4, 20, 20));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 4, 0, 20));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 4, NAN, 20));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 4, 0.03, INFINITY));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 4, 0.03, 20, 0));
    CHECK_THROWS(x2ct::InputError, schedule("iddpm", 1001, 0.03, 20));
}

}  // namespace

TESTS(edm_is_equation_5, log_snr_falls_by_one_factor, rho_1_is_linear, one_step_is_the_highest_level, vp_is_table_1,
      ve_is_table_1, iddpm_is_table_1, every_schedule_falls_between_its_ends, moments_are_equation_4, refusals)
