// SDE-DPM-Solver++ 2M (Lu et al. 2022, DPM-Solver++, section 6 and appendix): the 2M step of the reverse SDE, which
// forgets e^-2h of the state instead of e^-h and makes up for it with fresh noise.
#include <cmath>

#include "solvers.h"

namespace x2ct {

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

}  // namespace x2ct
