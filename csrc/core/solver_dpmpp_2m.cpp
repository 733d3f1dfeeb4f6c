// DPM-Solver++ 2M, data prediction (Lu et al. 2022, "DPM-Solver++: fast solver for guided sampling of diffusion
// probabilistic models", Algorithm 2), with alpha = 1 and lambda = -ln sigma.
#include <cmath>

#include "solvers.h"

namespace x2ct {

Table dpmpp_2m(const std::vector<double>& sigmas) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
        const double sigma = sigmas[i], next = sigmas[i + 1];
        const double ratio = next / sigma;  // e^-h, h = lambda' - lambda; 0 at the end, where h is infinite
        Row row;
        row.sigma = sigma;
        row.x.y = ratio;
        row.x.h = {1 - ratio};    // x' = e^-h x + (1 - e^-h) D: first order, for want of a history
        if (i > 0 && next > 0) {  // D -> (1 + 1/(2r)) D - 1/(2r) D_before, r = h_before / h
            const double r = std::log(sigmas[i - 1] / sigma) / std::log(sigma / next);
            row.x.h = {(1 - ratio) * (1 + 1 / (2 * r)), -(1 - ratio) / (2 * r)};
        }
        row.y = row.x;
        rows.push_back(row);
    }
    return Table("dpmpp-2m", sigmas, sigmas.front(), 0, rows);
}

}  // namespace x2ct
