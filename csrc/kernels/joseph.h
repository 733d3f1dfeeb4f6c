// Joseph's method along one ray: where it crosses the slices, and the weights there, forwards and transposed.
//
// Rays live in voxel-index space, where slices are integers and interpolation needs no affine; millimetres return only
// in the step's length. core/ray_fan.h makes them of a view.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/host_device.h"

namespace x2ct::kernels {

/// One ray: at slice k of `axis` it is at base + k * slope in the two other axes.
struct Ray {
    std::int32_t axis = 0;               ///< the axis that it follows most closely, in index space
    float step_mm = 0;                   ///< its length between two slices
    std::int64_t first = 0, last = 0;    ///< slices [first, last) that can touch the volume
    double base_b = 0.0, slope_b = 0.0;  ///< the slower of the other axes in memory
    double base_c = 0.0, slope_c = 0.0;  ///< the faster
};

// The axes that are not `axis`.
X2CT_BOTH int slower(int axis) { return axis == 0 ? 1 : 0; }
X2CT_BOTH int faster(int axis) { return axis == 2 ? 1 : 2; }

X2CT_BOTH std::int64_t stride_of(const std::int64_t shape[3], int axis) {
    return axis == 0 ? shape[1] * shape[2] : axis == 1 ? shape[2] : 1;
}

/// A volume in memory as a ray sees it: sizes and strides along its axis and the two others.
struct Layout {
    std::int64_t size_b, size_c;
    std::int64_t stride_a, stride_b, stride_c;
};

X2CT_BOTH Layout layout_of(const std::int64_t shape[3], int axis) {
    return {shape[slower(axis)], shape[faster(axis)], stride_of(shape, axis), stride_of(shape, slower(axis)),
            stride_of(shape, faster(axis))};
}

/// A range of k that gets narrower.
struct Clip {
    double low = -std::numeric_limits<double>::infinity();
    double high = std::numeric_limits<double>::infinity();

    /// Keeps the k for which low_at <= base + k * slope <= high_at.
    X2CT_BOTH void within(double base, double slope, double low_at, double high_at) {
        if (slope == 0.0) {
            if (base < low_at || base > high_at) high = -std::numeric_limits<double>::infinity();
            return;
        }
        const double a = (low_at - base) / slope;
        const double b = (high_at - base) / slope;
        const double from = a < b ? a : b, to = a < b ? b : a;
        if (from > low) low = from;
        if (to < high) high = to;
    }
};

/// Where a ray meets slice k: the voxel below it in both axes, and the fractions beyond that voxel.
struct Crossing {
    std::int64_t b, c;
    float fraction_b, fraction_c;
};

X2CT_BOTH double at(double base, double slope, std::int64_t k) { return base + static_cast<double>(k) * slope; }

/// For coordinates that are known not to be negative.
X2CT_BOTH Crossing crossing_inside(const Ray& ray, std::int64_t k) {
    const double b = at(ray.base_b, ray.slope_b, k);
    const double c = at(ray.base_c, ray.slope_c, k);
    const auto whole_b = static_cast<std::int64_t>(b);
    const auto whole_c = static_cast<std::int64_t>(c);
    return {whole_b, whole_c, static_cast<float>(b - static_cast<double>(whole_b)),
            static_cast<float>(c - static_cast<double>(whole_c))};
}

X2CT_BOTH Crossing crossing_anywhere(const Ray& ray, std::int64_t k) {
    const double b = at(ray.base_b, ray.slope_b, k);
    const double c = at(ray.base_c, ray.slope_c, k);
    const double whole_b = std::floor(b);
    const double whole_c = std::floor(c);
    return {static_cast<std::int64_t>(whole_b), static_cast<std::int64_t>(whole_c), static_cast<float>(b - whole_b),
            static_cast<float>(c - whole_c)};
}

/// What a crossing gives to the voxel with index `b` or `c` along one axis.
X2CT_BOTH float share(std::int64_t below, float fraction, std::int64_t voxel) {
    return voxel == below ? 1.0F - fraction : voxel == below + 1 ? fraction : 0.0F;
}

/// A range of slices.
struct Slices {
    std::int64_t first, last;
};

/// The part of a ray's slices [from, to) where all four corners of every crossing are voxels. Coordinates are monotone
/// in k, rounding included, so that checking both ends proves what lies between.
X2CT_BOTH Slices interior(const Ray& ray, const Layout& layout, std::int64_t from, std::int64_t to) {
    const double limit_b = static_cast<double>(layout.size_b - 1);
    const double limit_c = static_cast<double>(layout.size_c - 1);
    Clip clip{static_cast<double>(from), static_cast<double>(to - 1)};
    clip.within(ray.base_b, ray.slope_b, 0.0, limit_b);
    clip.within(ray.base_c, ray.slope_c, 0.0, limit_c);
    if (!(clip.low <= clip.high)) return {from, from};
    const auto inside = [&](std::int64_t k) {
        const double b = at(ray.base_b, ray.slope_b, k);
        const double c = at(ray.base_c, ray.slope_c, k);
        return b >= 0.0 && b < limit_b && c >= 0.0 && c < limit_c;
    };
    std::int64_t low = static_cast<std::int64_t>(std::ceil(clip.low));
    std::int64_t high = static_cast<std::int64_t>(std::floor(clip.high)) + 1;
    while (low < high && !inside(low)) ++low;
    while (low < high && !inside(high - 1)) --high;
    if (low < high) return {low, high};
    return {from, from};
}

/// Calls visit(offset, weight) for each corner of the crossing at slice k that is a voxel.
template <typename Visit>
X2CT_BOTH void visit_corners(const Ray& ray, const Layout& layout, std::int64_t k, const Visit& visit) {
    const Crossing x = crossing_anywhere(ray, k);
    for (int j = 0; j < 2; ++j) {
        for (int i = 0; i < 2; ++i) {
            const std::int64_t b = x.b + j;
            const std::int64_t c = x.c + i;
            if (b >= 0 && b < layout.size_b && c >= 0 && c < layout.size_c) {
                visit(k * layout.stride_a + b * layout.stride_b + c * layout.stride_c,
                      share(x.b, x.fraction_b, b) * share(x.c, x.fraction_c, c));
            }
        }
    }
}

/// The sum over the slices [from, to) of the interpolated volume, in voxels of step length.
X2CT_BOTH double integrate(const float* volume, const Layout& layout, const Ray& ray, std::int64_t from,
                           std::int64_t to) {
    const Slices inner = interior(ray, layout, from, to);
    double sum = 0.0;
    const auto edge = [&](std::int64_t k) {
        visit_corners(ray, layout, k, [&](std::int64_t offset, float weight) { sum += weight * volume[offset]; });
    };
    for (std::int64_t k = from; k < inner.first; ++k) edge(k);
    for (std::int64_t k = inner.first; k < inner.last; ++k) {
        const Crossing x = crossing_inside(ray, k);
        const float* corner = volume + k * layout.stride_a + x.b * layout.stride_b + x.c * layout.stride_c;
        const float* next = corner + layout.stride_b;
        const float near = corner[0] + x.fraction_c * (corner[layout.stride_c] - corner[0]);
        const float far = next[0] + x.fraction_c * (next[layout.stride_c] - next[0]);
        sum += near + x.fraction_b * (far - near);
    }
    for (std::int64_t k = inner.last; k < to; ++k) edge(k);
    return sum;
}

}  // namespace x2ct::kernels
