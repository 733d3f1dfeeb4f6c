// DPM-Solver++ 2M and 3M, data prediction (Lu et al. 2022, "DPM-Solver++: fast solver for guided sampling of diffusion
// probabilistic models"), with alpha = 1 and lambda = -ln sigma. A step integrates the data prediction exactly (eq. 8):
//
//     x' = e^-h x + integral over the step of e^(lambda - lambda') D, h = lambda' - lambda, e^-h = sigma' / sigma
#include <algorithm>
#include <cmath>
#include <string>

#include "solvers.h"

namespace x2ct {

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

}  // namespace x2ct
