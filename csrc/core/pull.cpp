// What consistency is told: when to pull, and in which units.
#include <algorithm>
#include <charconv>
#include <numeric>
#include <string_view>

#include "x2ct/consistency.h"
#include "x2ct/error.h"

namespace x2ct {

std::vector<int> pulled_after(const std::string& when, int evaluations) {
    if (when == "off") return {};
    if (when == "last") return {evaluations};
    std::vector<int> found;
    if (when == "every") {
        found.resize(static_cast<std::size_t>(evaluations));
        std::iota(found.begin(), found.end(), 1);
        return found;
    }
    const char *at = when.data(), *const end = at + when.size();
    while (true) {
        int evaluation = 0;
        const auto [next, error] = std::from_chars(at, end, evaluation);
        if (error == std::errc::invalid_argument || (next != end && *next != ',')) {
            throw InputError("consistency: found \"" + when +
                             "\", expected off, last, every, or evaluations such as 3,5,6");
        }
        if (error != std::errc() || evaluation < 1 || evaluation > evaluations) {
            throw InputError("consistency: evaluation: found " + std::string(at, next) + ", expected 1 to " +
                             std::to_string(evaluations) + ", the evaluations of this run");
        }
        found.push_back(evaluation);
        if (next == end) break;
        at = next + 1;
    }
    std::ranges::sort(found);
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
}

AttenuationKnots attenuation_knots(const Intensity& intensity) {
    const auto& [hu, x] = intensity;
    const double lowest = std::max(-1000.0, hu.front());
    AttenuationKnots knots;
    const auto add = [&](double value, double at) {
        knots.x.push_back(at);
        knots.mu.push_back(kWaterPerMm * (1 + value / 1000));
    };
    const auto next = static_cast<std::size_t>(std::ranges::upper_bound(hu, lowest) - hu.begin());
    if (next == hu.size()) throw InputError("consistency: intensity: found no HU above -1000, expected a window");
    const double slope = (x[next] - x[next - 1]) / (hu[next] - hu[next - 1]);
    add(lowest, slope * (lowest - hu[next - 1]) + x[next - 1]);
    for (std::size_t k = next; k < hu.size(); ++k) add(hu[k], x[k]);
    return knots;
}

VolumeGrid volume_grid(const Bundle::Grid& grid) {
    VolumeGrid result{grid.shape, {}};
    for (std::size_t axis = 0; axis < 3; ++axis) {
        const double spacing = grid.spacing_mm[axis];
        result.index_to_mm[5 * axis] = spacing;
        result.index_to_mm[4 * axis + 3] = -static_cast<double>(grid.shape[axis] - 1) / 2 * spacing;
    }
    result.index_to_mm[15] = 1;
    return result;
}

}  // namespace x2ct
