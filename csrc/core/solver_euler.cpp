// Euler's method on the probability flow ODE (Karras et al. 2022, eq. 4; Algorithm 1 without its correction), in the
// time and scale that the options name. With sigma(t) = t and s = 1 it is DDIM's step (Song et al. 2021).
#include "solvers.h"
#include "x2ct/schedule.h"

namespace x2ct {

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

}  // namespace x2ct
