#include "x2ct/view.h"

#include <algorithm>
#include <cmath>

#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr std::int64_t kMostPixels = 10'000;
constexpr double kPi = 3.14159265358979323846;

using Vector = std::array<double, 3>;

double dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

Vector cross(const Vector& a, const Vector& b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

double norm(const Vector& a) { return std::sqrt(dot(a, a)); }

// Sines of right angles without the rounding of pi, so that axis-aligned rays stay on their axis.
double exact(double value) { return std::abs(value - std::round(value)) < 1e-15 ? std::round(value) : value; }

[[noreturn]] void fail(const std::string& name, const std::string& what) {
    throw InputError("view " + name + ": " + what);
}

// From a view that sees the origin at pixel (0, 0), its third row `depth`, to one that sees the isocentre in the
// middle.
View view_of(const std::string& name, double angle_deg, double magnification, double per_mm_depth,
             const Detector& detector) {
    if (!std::isfinite(angle_deg)) fail(name, "angle: found a value that is not finite, expected degrees");
    if (!(detector.row_mm > 0 && detector.column_mm > 0)) {
        fail(name, "spacing_mm: found a pitch that is not above 0, expected two positive numbers");
    }
    const double sine = exact(std::sin(angle_deg * kPi / 180)), cosine = exact(std::cos(angle_deg * kPi / 180));
    Vector along_u{-cosine, sine, 0};
    // Shown alike from either side: columns run from the patient's right to left, or from front to back.
    const bool sagittal = std::abs(sine) > std::abs(cosine) + 1e-9;
    if ((sagittal ? along_u[1] : along_u[0]) > 0) along_u = {-along_u[0], -along_u[1], 0};
    const double across = magnification / detector.column_mm, down = magnification / detector.row_mm;
    const Vector u{along_u[0] * across, along_u[1] * across, 0}, v{0, 0, -down};
    const Vector w{-sine * per_mm_depth, -cosine * per_mm_depth, 0};
    const Vector& centre = detector.isocentre_mm;
    const double column = static_cast<double>(detector.columns - 1) / 2;
    const double row = static_cast<double>(detector.rows - 1) / 2;
    const Vector moved{-dot(u, centre), -dot(v, centre), 1 - dot(w, centre)};
    View view{name, {}, detector.rows, detector.columns, detector.row_mm, detector.column_mm};
    for (int i = 0; i < 4; ++i) {
        const double wi = i < 3 ? w[i] : moved[2];
        view.matrix[i] = (i < 3 ? u[i] : moved[0]) + column * wi;
        view.matrix[4 + i] = (i < 3 ? v[i] : moved[1]) + row * wi;
        view.matrix[8 + i] = wi;
    }
    check(view);
    return view;
}

}  // namespace

View parallel_view(const std::string& name, double angle_deg, const Detector& detector) {
    return view_of(name, angle_deg, 1, 0, detector);
}

View cone_view(const std::string& name, double angle_deg, double sod_mm, double sdd_mm, const Detector& detector) {
    if (!(sod_mm > 0 && std::isfinite(sod_mm))) fail(name, "sod_mm: found no positive distance, expected one in mm");
    if (!(sdd_mm >= sod_mm && std::isfinite(sdd_mm))) {
        fail(name, "sdd_mm: found less than the SOD, expected the distance from the source to the detector in mm");
    }
    return view_of(name, angle_deg, sdd_mm / sod_mm, 1 / sod_mm, detector);
}

void check(const View& view) {
    const auto& m = view.matrix;
    if (!std::ranges::all_of(m, [](double value) { return std::isfinite(value); })) {
        fail(view.name, "matrix: found values that are not finite, expected finite numbers");
    }
    if (view.rows < 1 || view.rows > kMostPixels || view.columns < 1 || view.columns > kMostPixels) {
        fail(view.name, "shape: found " + std::to_string(view.rows) + " x " + std::to_string(view.columns) +
                            ", expected rows and columns from 1 to " + std::to_string(kMostPixels));
    }
    Vector u{m[0], m[1], m[2]}, v{m[4], m[5], m[6]}, w{m[8], m[9], m[10]};
    const bool cone = norm(w) > 1e-12 * std::abs(m[11]);
    // Rows of unit length, so that neither magnification nor the pixel's size is mistaken for a lack of rank.
    for (Vector* row : {&u, &v, &w}) {
        const double length = norm(*row);
        if (length > 0) *row = {(*row)[0] / length, (*row)[1] / length, (*row)[2] / length};
    }
    const Vector normal = cross(u, v);
    if (!(norm(normal) > 1e-9) || (cone && !(std::abs(dot(normal, w)) > 1e-9))) {
        fail(view.name, "matrix: found dependent rows, expected one ray for each pixel");
    }
    if (!cone && !(m[11] > 0)) fail(view.name, "matrix: found w <= 0, expected w > 0 (1 for a parallel beam)");
}

}  // namespace x2ct
