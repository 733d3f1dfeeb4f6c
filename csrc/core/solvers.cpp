// The solvers, each compiled to a table: x is the state, D the denoised volume, t > t' two noise levels (the last is
// 0). Every one begins with its paper's update, which tests/paper_solvers.py computes step by step.
//
// First, the weights that multistep methods need on unequal steps: they integrate the polynomial through known values,
// plainly (Adams-Bashforth) or times an exponential (Hochbruck & Ostermann 2010, "Exponential integrators", sec. 2.5).
#include "solvers.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "core/names.h"
#include "x2ct/error.h"
#include "x2ct/schedule.h"

namespace x2ct {
namespace {

// w with sum_k w_k u_k^j = moments[j] for every j: for each node, its Lagrange polynomial written in powers of u.
std::vector<double> weights(const std::vector<double>& nodes, const std::vector<double>& moments) {
    std::vector<double> found;
    for (std::size_t k = 0; k < nodes.size(); ++k) {
        std::vector<double> lagrange = {1};  // coefficients of 1, u, u^2, ...
        for (std::size_t m = 0; m < nodes.size(); ++m) {
            if (m == k) continue;
            const double gap = nodes[k] - nodes[m];
            std::vector<double> product(lagrange.size() + 1, 0.0);  // times (u - u_m) / (u_k - u_m)
            for (std::size_t j = 0; j < lagrange.size(); ++j) {
                product[j] -= lagrange[j] * nodes[m] / gap;
                product[j + 1] += lagrange[j] / gap;
            }
            lagrange = std::move(product);
        }
        double weight = 0;
        for (std::size_t j = 0; j < lagrange.size(); ++j) weight += lagrange[j] * moments[j];
        found.push_back(weight);
    }
    return found;
}

// The integral of h e^(-h (1 - u)) u^j over [0, 1].
double exponential_moment(double h, int j) {
    if (h > 1) {  // by parts: 1 - (j / h) times the one before
        double moment = -std::expm1(-h);
        for (int i = 1; i <= j; ++i) moment = 1 - i / h * moment;
        return moment;
    }
    double term = h / (j + 1), sum = 0;  // a small h would cancel there: sum_k h (-h)^k j! / (j + k + 1)!
    for (int k = 1; k < 24; ++k) {
        sum += term;
        term *= -h / (j + k + 1);
    }
    return sum;
}

}  // namespace

std::vector<double> polynomial_weights(const std::vector<double>& nodes) {
    std::vector<double> moments(nodes.size());
    for (std::size_t j = 0; j < nodes.size(); ++j) moments[j] = 1.0 / static_cast<double>(j + 1);
    return weights(nodes, moments);
}

std::vector<double> exponential_weights(double h, const std::vector<double>& nodes) {
    std::vector<double> moments(nodes.size());
    for (std::size_t j = 0; j < nodes.size(); ++j) moments[j] = exponential_moment(h, static_cast<int>(j));
    return weights(nodes, moments);
}

// Euler's method on the probability flow ODE (Karras et al. 2022, Algorithm 1 without its correction; DDIM, Song et al.
// 2021), in the time and scale that the options name:
//
//     d = (x - D(x, t)) / t
//     x' = x + (t' - t) d

Table euler(const std::vector<double>& sigmas, const SolverOptions& options) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
        const Moment now = moment(options.time, sigmas[i]), next = moment(options.time, sigmas[i + 1]);
        const double step = next.time - now.time;
        Row row;
        row.sigma = sigmas[i];
        row.input_scale = 1 / now.scale;
        if (sigmas[i + 1] == 0) {
            row.y.h = {1};  // D itself, in every time: a last step in VE's would leave half of the noise
        } else {            // y' = x' / s' with x' = s y + (t' - t) s (grow y - pull D)
            row.y.y = now.scale / next.scale * (1 + step * now.grow);
            row.y.h = {-now.scale / next.scale * step * now.pull};
        }
        row.x = row.y;
        rows.push_back(row);
    }
    return Table("euler", sigmas, moment(options.time, sigmas[0]).scale * sigmas[0], 0, rows);
}

// Heun's second-order method with stochastic churn (Karras et al. 2022, Algorithm 2; without churn, Algorithm 1):
//
//     t^ = t + gamma t, x^ = x + sqrt(t^^2 - t^2) s_noise n
//     d = (x^ - D(x^, t^)) / t^, x' = x^ + (t' - t^) d
//     x' = x^ + (t' - t^) (d + (x' - D(x', t')) / t') / 2, unless t' = 0
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

// DPM-Solver++ 2M and 3M, data prediction (Lu et al. 2022, "DPM-Solver++: fast solver for guided sampling of diffusion
// probabilistic models"), with alpha = 1 and lambda = -ln sigma. A step integrates the data prediction exactly (eq. 8):
//
//     x' = e^-h x + integral over the step of e^(lambda - lambda') D, h = lambda' - lambda, e^-h = sigma' / sigma

Combination dpmpp_step(const std::vector<double>& sigmas, std::size_t i, int order) {
    const double ratio = sigmas[i + 1] / sigmas[i];  // e^-h; 0 at the end, where h is infinite
    Combination step;
    step.y = ratio;
    if (order == 1 || ratio == 0) {
        step.h = {1 - ratio};
        return step;
    }
    const double h = -std::log(ratio), r = std::log(sigmas[i - 1] / sigmas[i]) / h;
    if (order == 2) {  // Algorithm 2: D -> (1 + 1/(2r)) D - 1/(2r) D_before
        step.h = {(1 - ratio) * (1 + 1 / (2 * r)), -(1 - ratio) / (2 * r)};
        return step;
    }
    // The parabola through three predictions. The authors' code takes half of its last term, which is order 2 only.
    const double r2 = std::log(sigmas[i - 2] / sigmas[i]) / h;
    std::ranges::copy(exponential_weights(h, {0, -r, -r2}), step.h.begin());
    return step;
}

// The first steps are of lower order for want of a history, and the last, to sigma 0, is D.
Table dpmpp(const std::vector<double>& sigmas, int order) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
        Row row;
        row.sigma = sigmas[i];
        row.x = row.y = dpmpp_step(sigmas, i, std::min(static_cast<int>(i) + 1, order));
        rows.push_back(row);
    }
    return Table("dpmpp-" + std::to_string(order) + "m", sigmas, sigmas.front(), 0, rows);
}

// SDE-DPM-Solver++ 2M (Lu et al. 2022, DPM-Solver++, section 6 and appendix): the 2M step of the reverse SDE, which
// keeps e^-2h of the state instead of e^-h and makes up for it with fresh noise; h = ln(t / t'), r = h_before / h:
//
//     x' = e^-2h x + (1 - e^-2h) (D + (D - D_before) / (2 r)) + t' sqrt(1 - e^-2h) n

Table dpmpp_2m_sde(const std::vector<double>& sigmas) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
        const double ratio = sigmas[i + 1] / sigmas[i], kept = ratio * ratio;  // e^-h and e^-2h
        Row row;
        row.sigma = sigmas[i];
        row.x.y = kept;
        row.x.h = {1 - kept};
        if (i > 0 && ratio > 0) {  // D -> D + (D - D_before) / (2r)
            const double r = std::log(sigmas[i - 1] / sigmas[i]) / -std::log(ratio);
            row.x.h = {(1 - kept) * (1 + 1 / (2 * r)), -(1 - kept) / (2 * r)};
        }
        row.x.noise = sigmas[i + 1] * std::sqrt(1 - kept);
        row.draw = static_cast<std::uint32_t>(i + 1);  // the start is draw 0
        row.y = row.x;
        rows.push_back(row);
    }
    return Table("dpmpp-2m-sde", sigmas, sigmas.front(), 0, rows);
}

// UniPC-2 and -3, multistep, data prediction, B2(h) = e^h - 1 (Zhao et al. 2023, "UniPC: a unified predictor-corrector
// framework for fast sampling of diffusion models", Algorithms 5 and 6), with alpha = 1 and lambda = -ln sigma.
//
//     predictor  y' = e^-h x + (1 - e^-h) (D + sum over k of rho_k (D_k - D) / r_k)
//     corrector  x' = e^-h x + (1 - e^-h) (D + sum over k of rho_k (D_k - D) / r_k + rho_p (D' - D)), D' = D(y', t')
//
// The network sees y; the corrector uses the same evaluation as the next predictor: one a step. The predictor is
// DPM-Solver++'s step: B cancels out of the paper's R rho = b except where that fixes rho = 1/2.
namespace {

// The state at sigmas[i] again, now that D is known there: UniC-p out of x at sigmas[i - 1] and H0, H1, ...
Combination correct(const std::vector<double>& sigmas, std::size_t i, int order) {
    const double before = sigmas[i - 1], ratio = sigmas[i] / before, h = -std::log(ratio);
    Combination step;
    step.x = ratio;
    if (order == 1) {
        step.h = {(1 - ratio) / 2, (1 - ratio) / 2};
        return step;
    }
    std::vector<double> nodes = {1, 0};  // where the predictions lie between sigmas[i - 1] and sigmas[i], in lambda
    for (int k = 2; k <= order; ++k) nodes.push_back(-std::log(sigmas[i - k] / before) / h);
    std::ranges::copy(exponential_weights(h, nodes), step.h.begin());
    return step;
}

// Takes `step`'s y to be the state that `state` makes.
Combination after(const Combination& step, const Combination& state) {
    Combination whole = step;
    whole.x = step.y * state.x;
    whole.y = step.y * state.y;
    for (int k = 0; k < kHistory; ++k) whole.h[k] += step.y * state.h[k];
    return whole;
}

}  // namespace

Table unipc(const std::vector<double>& sigmas, int order) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
        const int known = static_cast<int>(i);  // predictions before this one
        const bool last = i + 2 == sigmas.size();
        Row row;
        row.sigma = sigmas[i];
        if (i == 0) {
            row.x.y = 1;
        } else {
            row.x = correct(sigmas, i, std::min(known, order));
        }
        row.y = after(dpmpp_step(sigmas, i, std::min(known + 1, order)), row.x);
        if (last) row.x = row.y;
        rows.push_back(row);
    }
    return Table("unipc-" + std::to_string(order), sigmas, sigmas.front(), 0, rows);
}

// iPNDM-2, -3 and -4: Adams-Bashforth on dx/dsigma = (x - D) / sigma, warmed up with lower orders (Liu et al. 2022,
// "Pseudo numerical methods for diffusion models on manifolds"; Zhang & Chen 2022, DEIS, whose iPNDM starts like this).
//
//     d = (x - D(x, t)) / t, x' = x + (t' - t) (b_0 d + b_1 d_before + ...)
//
// Their weights b (3/2, -1/2; 23/12, ...) hold for equal steps; on others they fall to order 2 at best. Here b fits the
// steps as they are, and is theirs where the steps are equal.

Table ipndm(const std::vector<double>& sigmas, int order) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
        const double sigma = sigmas[i], step = sigmas[i + 1] - sigma;
        Row row;
        row.sigma = sigma;
        if (sigmas[i + 1] == 0) {  // Euler's step to 0 is D
            row.x.h = {1};
        } else {
            row.a = 1 / sigma, row.b = -1 / sigma;
            row.x.y = 1;
            std::vector<double> nodes;
            for (int k = 0; k < std::min(static_cast<int>(i) + 1, order); ++k) {
                nodes.push_back((sigmas[i - k] - sigma) / step);
            }
            const std::vector<double> weights = polynomial_weights(nodes);
            for (std::size_t k = 0; k < weights.size(); ++k) row.x.h[k] = step * weights[k];
        }
        row.y = row.x;
        rows.push_back(row);
    }
    return Table("ipndm-" + std::to_string(order), sigmas, sigmas.front(), 0, rows);
}

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
