// Heun's second-order method with stochastic churn (Karras et al. 2022, Algorithm 2; without churn, Algorithm 1, in the
// time and scale that the options name).
#include <algorithm>
#include <cmath>

#include "solvers.h"
#include "x2ct/schedule.h"

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
        const Moment now = moment(options.time, t), then = moment(options.time, next);
        const Churn up = i + 1 < steps ? churn(next, steps, options) : Churn{next, 0};
        const double step = then.time - now.time;
        Row predict;
        predict.sigma = t;
        predict.input_scale = 1 / now.scale;
        if (next == 0) {  // no derivative at 0: the Euler step is x = D, and there is no correction (line 9)
            predict.x.h = {1};
            rows.push_back(predict);
            break;
        }
        // H0 = dx/dt / s. The Euler step x + (t' - t) d; x keeps the state it started from (lines 7 and 8).
        predict.a = now.grow, predict.b = -now.pull;
        predict.x.y = now.scale;
        predict.y.y = now.scale / then.scale, predict.y.h = {now.scale / then.scale * step};
        rows.push_back(predict);

        // x + (t' - t) (d + d')/2, where d' is the derivative at the predicted x' = s' y' (lines 10 and 11). As
        // x' = x + (t' - t) d, this is (x + x')/2 + (t' - t)/2 d', and d need not be kept. Then the next step's churn
        // (its lines 4 to 6).
        const bool last = i + 1 == steps;
        Row correct;
        correct.sigma = next;
        correct.input_scale = 1 / then.scale;
        correct.a = then.grow, correct.b = -then.pull;
        correct.y.x = 0.5 / then.scale, correct.y.y = 0.5, correct.y.h = {step / 2};
        correct.x = correct.y;  // never read by the next row, and the result in the data's unit if this is the last
        correct.y.noise = last ? 0 : up.noise;
        correct.draw = static_cast<std::uint32_t>(i + 2);  // step i's churn is draw i + 1, and the start is draw 0
        rows.push_back(correct);
    }
    return Table("heun", sigmas, moment(options.time, sigmas[0]).scale * sigmas.front(), start.noise, rows);
}

}  // namespace x2ct
