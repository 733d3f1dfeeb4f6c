// iPNDM-2, -3 and -4: Adams-Bashforth on dx/dsigma = (x - D) / sigma, warmed up with lower orders (Liu et al. 2022,
// "Pseudo numerical methods for diffusion models on manifolds"; Zhang & Chen 2022, DEIS, whose iPNDM starts like this).
//
// Their weights (3/2, -1/2; 23/12, ...) hold for equal steps; on others they fall to order 2 at best. These are the
// weights for the steps as they are, and theirs where the steps are equal.
#include <algorithm>
#include <string>

#include "solvers.h"

namespace x2ct {

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

}  // namespace x2ct
