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

void refusals() {
    CHECK_THROWS(x2ct::InputError, schedule("cosine", 4, 0.03, 20));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 0, 0.03, 20));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 4, 20, 20));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 4, 0, 20));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 4, NAN, 20));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 4, 0.03, INFINITY));
    CHECK_THROWS(x2ct::InputError, schedule("edm", 4, 0.03, 20, 0));
}

}  // namespace

TESTS(edm_is_equation_5, log_snr_falls_by_one_factor, rho_1_is_linear, one_step_is_the_highest_level, refusals)
