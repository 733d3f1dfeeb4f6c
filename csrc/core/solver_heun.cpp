// Heun's second-order method with stochastic churn (Karras et al. 2022, Algorithm 2; without churn, Algorithm 1).
#include <algorithm>
#include <cmath>

#include "solvers.h"

namespace x2ct {
namespace {

// How far step i first goes back up: t_hat = t + gamma t, and the size of the noise that takes it there.
struct Churn {
    double t_hat;
    double noise;
};

Churn churn(double t, std::size_t steps, const SolverOptions& options) {
    const bool within = t >= options.s_min && t <= options.s_max;
    const double gamma = within ? std::min(options.s_churn / static_cast<double>(steps), std::sqrt(2.0) - 1) : 0;
    const double t_hat = t + gamma * t;
    return {t_hat, gamma > 0 ? options.s_noise * std::sqrt(t_hat * t_hat - t * t) : 0};
}

}  // namespace

Table heun(const std::vector<double>& sigmas, const SolverOptions& options) {
    const std::size_t steps = sigmas.size() - 1;
    const Churn start = churn(sigmas[0], steps, options);
    std::vector<Row> rows;
    for (std::size_t i = 0; i < steps; ++i) {
        const double t = churn(sigmas[i], steps, options).t_hat, next = sigmas[i + 1];
        const Churn up = i + 1 < steps ? churn(next, steps, options) : Churn{next, 0};
        Row predict;
        predict.sigma = t;
        if (next == 0) {  // no derivative at 0: the Euler step is x = D, and there is no correction (line 9)
            predict.x.h = {1};
            rows.push_back(predict);
            break;
        }
        // The Euler step x + (t' - t) d, d = (x - D)/t; x keeps the state it started from (lines 7 and 8).
        predict.a = 1 / t, predict.b = -1 / t;
        predict.x.y = 1;
        predict.y.y = 1, predict.y.h = {next - t};
        rows.push_back(predict);

        // x + (t' - t) (d + d')/2 with d' = (y - D)/t' (lines 10 and 11). As y = x + (t' - t) d, this is
        // (x + y)/2 + (t' - t)/2 d', and d need not be kept. Then the next step's churn (its lines 4 to 6).
        Row correct;
        correct.sigma = next;
        correct.a = 1 / next, correct.b = -1 / next;
        correct.x.x = 0.5, correct.x.y = 0.5, correct.x.h = {(next - t) / 2};
        correct.y = correct.x;
        correct.y.noise = up.noise;
        correct.draw = static_cast<std::uint32_t>(i + 2);  // step i's churn is draw i + 1, and the start is draw 0
        rows.push_back(correct);
    }
    return Table("heun", sigmas, sigmas.front(), start.noise, rows);
}

}  // namespace x2ct
