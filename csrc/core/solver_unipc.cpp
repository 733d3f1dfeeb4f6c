// UniPC-2 and -3, multistep, data prediction, B2(h) = e^h - 1 (Zhao et al. 2023, "UniPC: a unified predictor-corrector
// framework for fast sampling of diffusion models", Algorithms 5 and 6), with alpha = 1 and lambda = -ln sigma.
//
// y is the predicted state that the network sees and x the corrected one, which uses the same evaluation: one a step.
// The predictor UniP-p is DPM-Solver++'s step: B cancels out of the paper's R rho = b but where that fixes rho = 1/2.
#include <algorithm>
#include <cmath>
#include <string>

#include "solvers.h"

namespace x2ct {
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

}  // namespace x2ct
