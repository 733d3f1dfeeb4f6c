#include "x2ct/xray.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr float kWholly = 0.999F;  // the share of a pixel that must have been measured

[[noreturn]] void fail(const XRay& xray, const std::string& what) {
    throw InputError((xray.name.empty() ? "X-ray in slot " + std::to_string(xray.slot) : xray.name) + ": " + what);
}

void check_one(const Bundle& bundle, const XRay& xray) {
    if (xray.slot < 0 || xray.slot >= static_cast<int>(bundle.views.size())) {
        fail(xray, "slot: expected 0 to " + std::to_string(bundle.views.size() - 1) + ", the bundle's views");
    }
    if (xray.line_integrals == nullptr) fail(xray, "line_integrals: found none, expected rows x columns numbers");
    const View& own = bundle.views[xray.slot];
    const std::string found = std::to_string(xray.rows) + " x " + std::to_string(xray.columns);
    View view = own;
    view.rows = xray.rows, view.columns = xray.columns;
    if (xray.matrix) {
        view.matrix = *xray.matrix;
        check(view);
    } else if (xray.rows != own.rows || xray.columns != own.columns) {
        fail(xray, "shape: found " + found + " without a matrix, expected " + std::to_string(own.rows) + " x " +
                       std::to_string(own.columns) + ", the bundle's view " + own.name);
    }
    for (std::int64_t i = 0; i < xray.rows * xray.columns; ++i) {
        const float value = xray.line_integrals[i];
        const bool fits = value >= kLeastLineIntegral && value <= kMostLineIntegral;
        if (xray.calibrated ? !fits : !std::isfinite(value)) {
            fail(xray, "values: found " + std::to_string(value) +
                           (xray.calibrated ? ", expected line integrals of attenuation, -1 to 100"
                                            : ", expected finite numbers"));
        }
    }
}

// `pixels` of the X-ray's detector, as the encoder's picture.
Picture on_encoder(const Bundle& bundle, const XRay& xray, const float* pixels) {
    return onto_grid(pixels, {xray.rows, xray.columns}, xray.matrix.value_or(bundle.views[xray.slot].matrix),
                     {bundle.xray.rows, bundle.xray.columns}, {bundle.xray.row_mm, bundle.xray.column_mm});
}

// Where the encoder's picture holds what the detector measured, and not the air that padding and shutters became.
std::vector<std::uint8_t> measured_of(const Bundle& bundle, const XRay& xray) {
    std::vector<float> whole;
    if (xray.measured == nullptr) whole.assign(static_cast<std::size_t>(xray.rows * xray.columns), 1.0F);
    const Picture picture = on_encoder(bundle, xray, xray.measured == nullptr ? whole.data() : xray.measured);
    std::vector<std::uint8_t> measured(picture.pixels.size());
    std::ranges::transform(picture.pixels, measured.begin(),
                           [](float share) { return static_cast<std::uint8_t>(share > kWholly); });
    return measured;
}

// Whether a view's columns follow the patient's x, at the grid's centre.
bool is_along_x(const float* p) {
    const float u = p[3] / p[11];
    return std::abs(p[0] - u * p[8]) > std::abs(p[1] - u * p[9]);
}

}  // namespace

void check(const Bundle& bundle, std::span<const XRay> xrays) {
    if (xrays.empty()) throw InputError("X-rays: found none, expected at least one");
    std::set<int> slots;
    for (const XRay& xray : xrays) {
        check_one(bundle, xray);
        if (!slots.insert(xray.slot).second) fail(xray, "slot: found it twice, expected a slot for each X-ray");
    }
}

Conditions conditions_of(const Bundle& bundle, std::span<const XRay> xrays) {
    const auto pixels = static_cast<std::size_t>(bundle.xray.rows * bundle.xray.columns);
    Conditions ready{std::vector<float>(bundle.views.size() * pixels), std::vector<float>(bundle.views.size()), {}};
    std::vector<std::array<double, 12>> seen;
    seen.reserve(bundle.views.size());
    for (const View& view : bundle.views) seen.push_back(view.matrix);
    for (const XRay& xray : xrays) {
        const auto slot = static_cast<std::size_t>(xray.slot);
        const Picture picture = on_encoder(bundle, xray, xray.line_integrals);
        std::ranges::copy(picture.pixels, ready.views.begin() + static_cast<std::ptrdiff_t>(slot * pixels));
        seen[slot] = picture.matrix;
        ready.valid[slot] = 1;
    }
    for (const auto& matrix : seen) {
        for (const double value : matrix) ready.matrices.push_back(static_cast<float>(value));
    }
    return ready;
}

Conditions mirrored(Conditions conditions, std::int64_t columns) {
    const std::size_t slots = conditions.valid.size(), pixels = conditions.views.size() / slots;
    for (std::size_t slot = 0; slot < slots; ++slot) {
        const std::span p(conditions.matrices.data() + 12 * slot, 12);
        const bool along_x = is_along_x(p.data());
        for (const int row : {0, 1, 2}) p[4 * row] = -p[4 * row];
        if (!along_x) continue;
        for (int k = 0; k < 4; ++k) p[k] = static_cast<float>(columns - 1) * p[8 + k] - p[k];
        const auto first = conditions.views.begin() + static_cast<std::ptrdiff_t>(slot * pixels);
        for (auto row = first; row < first + static_cast<std::ptrdiff_t>(pixels); row += columns) {
            std::reverse(row, row + columns);
        }
    }
    return conditions;
}

bool can_be_mirrored(const Conditions& conditions) {
    for (std::size_t slot = 0; slot < conditions.valid.size(); ++slot) {
        const float* const p = conditions.matrices.data() + 12 * slot;
        const bool is_parallel = p[8] == 0 && p[9] == 0 && p[10] == 0;
        if (conditions.valid[slot] > 0 && !is_parallel && !is_along_x(p)) return false;
    }
    return true;
}

std::vector<MeasuredView> measured_views(const Bundle& bundle, std::span<const XRay> xrays,
                                         const Conditions& conditions) {
    const std::int64_t rows = bundle.xray.rows, columns = bundle.xray.columns, pixels = rows * columns;
    std::vector<MeasuredView> views;
    for (const XRay& xray : xrays) {
        const float* const image = conditions.views.data() + xray.slot * pixels;
        MeasuredView view{xray.name.empty() ? bundle.views[xray.slot].name : xray.name,
                          {{}, rows, columns},
                          {image, image + pixels},
                          measured_of(bundle, xray),
                          xray.calibrated};
        std::copy_n(conditions.matrices.begin() + xray.slot * 12L, 12, view.view.matrix.begin());
        views.push_back(std::move(view));
    }
    return views;
}

}  // namespace x2ct
