#include "core/ray_fan.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "x2ct/error.h"

namespace x2ct {
namespace {

using Vec3 = RayFan::Vec3;
using Mat3 = RayFan::Mat3;

Vec3 cross(const Vec3& a, const Vec3& b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

double dot(const Vec3& a, const Vec3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

double norm(const Vec3& a) { return std::sqrt(dot(a, a)); }

Vec3 times(const Mat3& m, const Vec3& a) { return {dot(m[0], a), dot(m[1], a), dot(m[2], a)}; }

// Inverse by cofactors; `what` names the matrix when it has none. The determinant is judged against the product of the
// rows' lengths, so that units and magnification don't matter.
Mat3 inverse(const Mat3& m, const std::string& what) {
    const Mat3 cofactor = {cross(m[1], m[2]), cross(m[2], m[0]), cross(m[0], m[1])};
    const double determinant = dot(m[0], cofactor[0]);
    const double size = norm(m[0]) * norm(m[1]) * norm(m[2]);
    if (!(std::abs(determinant) > 1e-12 * size)) {
        throw InputError(what + ": found a singular matrix, expected one that can be inverted");
    }
    Mat3 result{};
    for (int row = 0; row < 3; ++row) {
        for (int col = 0; col < 3; ++col) result[row][col] = cofactor[col][row] / determinant;
    }
    return result;
}

template <std::size_t Count>
void require_finite(const std::array<double, Count>& matrix, const std::string& what) {
    if (!std::all_of(matrix.begin(), matrix.end(), [](double value) { return std::isfinite(value); })) {
        throw InputError(what + ": values: found NaN or infinity, expected finite numbers");
    }
}

void check(const VolumeGrid& grid, const DetectorView& view) {
    for (const std::int64_t extent : grid.shape) {
        if (extent < 1) {
            throw InputError("volume: shape: found an empty axis, expected at least one voxel along each");
        }
    }
    if (view.rows < 1 || view.cols < 1) {
        throw InputError("view: shape: found an empty detector, expected at least one row and one column");
    }
    const auto& affine = grid.index_to_mm;
    require_finite(affine, "index_to_mm");
    require_finite(view.matrix, "P");
    if (affine[12] != 0.0 || affine[13] != 0.0 || affine[14] != 0.0 || affine[15] != 1.0) {
        throw InputError("index_to_mm: last row: found other numbers, expected 0 0 0 1");
    }
}

std::int64_t saturate(double value) {
    constexpr double kFar = 1e15;
    return static_cast<std::int64_t>(std::clamp(value, -kFar, kFar));
}

// The ray is at slice k after (k - source) / direction; only positive times are in front of the source.
void in_front(double direction, double source, kernels::Ray& ray) {
    if (direction > 0.0) {
        if (source >= 0.0) ray.first = std::max(ray.first, saturate(std::floor(source)) + 1);
    } else if (source < static_cast<double>(ray.last)) {
        ray.last = std::min(ray.last, saturate(std::ceil(source)));
    }
}

}  // namespace

RayFan::RayFan(const VolumeGrid& grid, const DetectorView& view)
    : shape_(grid.shape), rows_(view.rows), cols_(view.cols) {
    check(grid, view);
    const auto& affine = grid.index_to_mm;
    const auto& p = view.matrix;
    for (int row = 0; row < 3; ++row) {
        for (int col = 0; col < 3; ++col) to_mm_[row][col] = affine[4 * row + col];
    }
    inverse(to_mm_, "index_to_mm");  // only to refuse a singular affine

    Mat3 m{};  // the left 3x3 of P * index_to_mm
    Vec3 t{};  // its last column
    for (int row = 0; row < 3; ++row) {
        for (int col = 0; col < 3; ++col) {
            m[row][col] =
                p[4 * row] * affine[col] + p[4 * row + 1] * affine[4 + col] + p[4 * row + 2] * affine[8 + col];
        }
        t[row] = p[4 * row] * affine[3] + p[4 * row + 1] * affine[7] + p[4 * row + 2] * affine[11] + p[4 * row + 3];
    }
    cone_ = norm({p[8], p[9], p[10]}) > 1e-12 * std::abs(p[11]);
    if (cone_) {
        of_cone(t, m);
    } else {
        of_parallel(t, m, p[11]);
    }
}

// w (u, v, 1) = m x + t: the source is where it vanishes; a pixel's ray leaves it along m^-1 (u, v, 1), which raises w,
// so that it points away from the source's front.
void RayFan::of_cone(const Vec3& t, const Mat3& m) {
    inverse_ = inverse(m, "P");
    origin_ = times(inverse_, {-t[0], -t[1], -t[2]});
}

// (u, v) w = m x + t has the null vector of m's first two rows as its direction; with that as a third row the system is
// square, and its zero chooses the point of the ray that is nearest to the origin.
void RayFan::of_parallel(const Vec3& t, Mat3 m, double w) {
    if (!(w > 0.0)) {
        throw InputError("P: third row: found w <= 0 everywhere, expected w > 0 (1 for a parallel beam)");
    }
    m[2] = cross(m[0], m[1]);
    const double size = norm(m[0]) * norm(m[1]);
    if (!(norm(m[2]) > 1e-12 * size)) {
        throw InputError("P: found rows that are parallel or zero, expected two independent directions");
    }
    direction_ = m[2];
    inverse_ = inverse(m, "P");
    scale_ = w;
    offset_ = {t[0], t[1]};
}

kernels::Ray RayFan::ray(double u, double v) const {
    Vec3 point = origin_;
    Vec3 direction = direction_;
    if (cone_) {
        direction = times(inverse_, {u, v, 1.0});
    } else {
        point = times(inverse_, {u * scale_ - offset_[0], v * scale_ - offset_[1], 0.0});
    }
    kernels::Ray ray;
    for (int axis = 1; axis < 3; ++axis) {
        if (std::abs(direction[axis]) > std::abs(direction[ray.axis])) ray.axis = axis;
    }
    const int a = ray.axis, b = kernels::slower(a), c = kernels::faster(a);
    ray.slope_b = direction[b] / direction[a];
    ray.slope_c = direction[c] / direction[a];
    ray.base_b = point[b] - point[a] * ray.slope_b;
    ray.base_c = point[c] - point[a] * ray.slope_c;
    ray.step_mm = static_cast<float>(norm(times(to_mm_, direction)) / std::abs(direction[a]));

    kernels::Clip clip{0.0, static_cast<double>(shape_[a] - 1)};
    clip.within(ray.base_b, ray.slope_b, -1.0, static_cast<double>(shape_[b]));
    clip.within(ray.base_c, ray.slope_c, -1.0, static_cast<double>(shape_[c]));
    if (clip.low <= clip.high) {
        // One slice of margin each way: the samples there are checked one by one.
        ray.first = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::ceil(clip.low)) - 1);
        ray.last = std::min<std::int64_t>(shape_[a], static_cast<std::int64_t>(std::floor(clip.high)) + 2);
        if (cone_) in_front(direction[a], point[a], ray);
    }
    return ray;
}

bool RayFan::rows_are_contiguous() const {
    const double u = 0.5 * static_cast<double>(cols_ - 1);
    const double v = 0.5 * static_cast<double>(rows_ - 1);
    const kernels::Ray centre = ray(u, v);
    const double middle = 0.5 * static_cast<double>(shape_[centre.axis] - 1);
    const auto fast_coordinate = [&](const kernels::Ray& r) { return r.base_c + middle * r.slope_c; };
    const double along_u = fast_coordinate(ray(u + 1e-3, v)) - fast_coordinate(centre);
    const double along_v = fast_coordinate(ray(u, v + 1e-3)) - fast_coordinate(centre);
    return std::abs(along_v) > std::abs(along_u);
}

std::vector<kernels::Ray> RayFan::table() const {
    std::vector<kernels::Ray> rays;
    rays.reserve(static_cast<std::size_t>(rows_ * cols_));
    for (std::int64_t v = 0; v < rows_; ++v) {
        for (std::int64_t u = 0; u < cols_; ++u) rays.push_back(ray(static_cast<double>(u), static_cast<double>(v)));
    }
    return rays;
}

}  // namespace x2ct
