// Euler's method on the probability flow ODE dx/dsigma = (x - D(x; sigma)) / sigma
// (Karras et al. 2022, eq. 1 with eq. 3 and s = 1, sigma(t) = t; DDIM, Song et al. 2021, is the same step).
#include "solvers.h"

namespace x2ct {

Table euler(const std::vector<double>& sigmas) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
        // x' = x + (s' - s) (x - D) / s = (s'/s) x + (1 - s'/s) D
        const double ratio = sigmas[i + 1] / sigmas[i];
        Row row;
        row.sigma = sigmas[i];
        row.x.y = ratio;
        row.x.h = {1 - ratio};
        row.y = row.x;
        rows.push_back(row);
    }
    return Table("euler", sigmas, sigmas.front(), 0, rows);
}

}  // namespace x2ct
