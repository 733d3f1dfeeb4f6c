#include "x2ct/view.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "x2ct/error.h"

namespace x2ct {
namespace {

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

std::string brief(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

void check_pitch(const std::string& name, double row_mm, double column_mm) {
    const bool fits = row_mm > 0 && column_mm > 0 && std::isfinite(row_mm) && std::isfinite(column_mm);
    if (!fits) {
        fail(name,
             "spacing_mm: found " + brief(row_mm) + " and " + brief(column_mm) + ", expected two positive numbers");
    }
}

// From a view that sees the origin at pixel (0, 0), its third row `depth`, to one that sees the isocentre in the
// middle.
View view_of(const std::string& name, double angle_deg, double tilt_deg, double magnification, double per_mm_depth,
             const Detector& detector) {
    if (!std::isfinite(angle_deg)) fail(name, "angle: found " + brief(angle_deg) + ", expected degrees");
    if (!(std::abs(tilt_deg) <= kMostTiltDeg)) {
        fail(name, "tilt: found " + brief(tilt_deg) + ", expected at most " + brief(kMostTiltDeg) + " degrees");
    }
    check_pitch(name, detector.row_mm, detector.column_mm);
    const double sine = exact(std::sin(angle_deg * kPi / 180)), cosine = exact(std::cos(angle_deg * kPi / 180));
    const double up = std::sin(tilt_deg * kPi / 180), level = std::cos(tilt_deg * kPi / 180);
    const Vector to_source{level * sine, level * cosine, up}, along_v{up * sine, up * cosine, -level};
    Vector along_u{-cosine, sine, 0};
    // Shown alike from either side: columns run from the patient's right to left, or from front to back.
    const bool sagittal = std::abs(sine) > std::abs(cosine) + 1e-9;
    if ((sagittal ? along_u[1] : along_u[0]) > 0) along_u = {-along_u[0], -along_u[1], 0};
    const double across = magnification / detector.column_mm, down = magnification / detector.row_mm;
    const Vector u{along_u[0] * across, along_u[1] * across, 0};
    const Vector v{along_v[0] * down, along_v[1] * down, along_v[2] * down};
    const Vector w{-to_source[0] * per_mm_depth, -to_source[1] * per_mm_depth, -to_source[2] * per_mm_depth};
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

View parallel_view(const std::string& name, double angle_deg, const Detector& detector, double tilt_deg) {
    return view_of(name, angle_deg, tilt_deg, 1, 0, detector);
}

View cone_view(const std::string& name, double angle_deg, double sod_mm, double sdd_mm, const Detector& detector,
               double tilt_deg) {
    if (!(sod_mm > 0 && std::isfinite(sod_mm))) {
        fail(name, "sod_mm: found " + brief(sod_mm) + ", expected a positive distance");
    }
    if (!(sdd_mm >= sod_mm && std::isfinite(sdd_mm))) {
        fail(name, "sdd_mm: found " + brief(sdd_mm) + ", expected at least the SOD, " + brief(sod_mm) + " mm");
    }
    return view_of(name, angle_deg, tilt_deg, sdd_mm / sod_mm, 1 / sod_mm, detector);
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
    check_pitch(view.name, view.row_mm, view.column_mm);
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
    if (!cone && !(m[11] > 0)) {
        fail(view.name, "matrix: found w = " + brief(m[11]) + ", expected w > 0 (1 for a parallel beam)");
    }
}

}  // namespace x2ct
