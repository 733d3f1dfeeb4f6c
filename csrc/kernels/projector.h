// The projector pair as work for a device: a ray's integral, and what all rays give to a voxel.
//
// The transpose gathers: a voxel asks the rays that can pass it, in the detector's order, so that nothing is written
// twice and the sum is the same each time. The host's own transpose (core/projector.cpp) spreads instead, which costs
// it less; the weights are the same.
#pragma once

#include "kernels/joseph.h"

namespace x2ct::kernels {

/// Line integrals of one view, [rows, cols]; 0 for rays that don't count.
struct JosephForward {
    const Ray* table;  ///< [rows, cols]
    const float* volume;
    const float* counts;
    float* rays;
    std::int64_t shape[3];
    std::int64_t rows, cols;
    bool along_rows;  ///< whether neighbouring rows, rather than columns, read neighbouring memory

    X2CT_BOTH std::int64_t count() const { return rows * cols; }
    X2CT_BOTH std::int64_t line() const { return along_rows ? rows : cols; }
    X2CT_BOTH std::int64_t cost() const { return shape[0] + shape[1] + shape[2]; }

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t pixel = along_rows ? i % rows * cols + i / rows : i;
            const Ray ray = table[pixel];
            double sum = 0.0;
            if (ray.first < ray.last) {
                sum = integrate(volume, layout_of(shape, ray.axis), ray, ray.first, ray.last);
            }
            rays[pixel] = static_cast<float>(sum * ray.step_mm) * counts[pixel];
        }
    }
};

/// The transpose for one view: a voxel's own sum, in place of what is there or added to it.
struct JosephBackward {
    const Ray* table;  ///< [rows, cols]
    const float* rays;
    float* volume;
    std::int64_t shape[3];
    std::int64_t rows, cols;
    double seen[3][4];  ///< the view in voxel indices: (u w, v w, w) = seen (x, y, z, 1)
    bool axes[3];       ///< that rays follow
    bool accumulate;

    X2CT_BOTH std::int64_t count() const { return shape[0] * shape[1] * shape[2]; }
    X2CT_BOTH std::int64_t line() const { return shape[2]; }
    X2CT_BOTH std::int64_t cost() const { return 64; }

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        const std::int64_t x = begin / (shape[1] * shape[2]), y = begin / shape[2] % shape[1];
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t z = i % shape[2];
            float sum = 0;
            if (axes[0]) sum += along<0>(x, y, z);
            if (axes[1]) sum += along<1>(x, y, z);
            if (axes[2]) sum += along<2>(x, y, z);
            volume[i] = accumulate ? volume[i] + sum : sum;
        }
    }

    /// Pixels [top, bottom) x [left, right).
    struct Window {
        std::int64_t top, bottom, left, right;
    };

    /// The sum over the rays that follow `Axis`.
    template <int Axis>
    X2CT_BOTH float along(std::int64_t x, std::int64_t y, std::int64_t z) const {
        const std::int64_t k = Axis == 0 ? x : Axis == 1 ? y : z;
        const std::int64_t b = Axis == 0 ? y : x, c = Axis == 2 ? y : z;
        const Window window = window_of<Axis>(k, b, c);
        float sum = 0;
        for (std::int64_t v = window.top; v < window.bottom; ++v) {
            for (std::int64_t u = window.left; u < window.right; ++u) {
                const Ray& ray = table[v * cols + u];
                if (ray.axis != Axis || k < ray.first || k >= ray.last) continue;
                const Crossing crossing = crossing_anywhere(ray, k);
                const float weight =
                    share(crossing.b, crossing.fraction_b, b) * share(crossing.c, crossing.fraction_c, c);
                if (weight != 0) sum += weight * (rays[v * cols + u] * ray.step_mm);
            }
        }
        return sum;
    }

    /// The pixels whose rays can pass a voxel of slice k: those that see some of what lies less than a voxel from it in
    /// the slice, which is within the hull of its corners' pictures; all where a corner is not in front of the source.
    template <int Axis>
    X2CT_BOTH Window window_of(std::int64_t k, std::int64_t b, std::int64_t c) const {
        constexpr double kFar = std::numeric_limits<double>::infinity();
        double low_u = kFar, high_u = -kFar, low_v = kFar, high_v = -kFar;
        for (int corner = 0; corner < 4; ++corner) {
            const auto at_k = static_cast<double>(k);
            const double at_b = static_cast<double>(b) + (corner < 2 ? -1.0 : 1.0);
            const double at_c = static_cast<double>(c) + (corner % 2 == 0 ? -1.0 : 1.0);
            const double x = Axis == 0 ? at_k : at_b, z = Axis == 2 ? at_k : at_c;
            const double y = Axis == 0 ? at_b : Axis == 1 ? at_k : at_c;
            const double w = seen[2][0] * x + seen[2][1] * y + seen[2][2] * z + seen[2][3];
            if (!(w > 0)) return {0, rows, 0, cols};
            const double u = (seen[0][0] * x + seen[0][1] * y + seen[0][2] * z + seen[0][3]) / w;
            const double v = (seen[1][0] * x + seen[1][1] * y + seen[1][2] * z + seen[1][3]) / w;
            low_u = u < low_u ? u : low_u, high_u = u > high_u ? u : high_u;
            low_v = v < low_v ? v : low_v, high_v = v > high_v ? v : high_v;
        }
        return {first_of(low_v, rows), end_of(high_v, rows), first_of(low_u, cols), end_of(high_u, cols)};
    }

    // A little more than the window, for what rounding may have taken off; a ray at its edge has no weight.
    X2CT_BOTH static std::int64_t first_of(double low, std::int64_t size) {
        const double from = std::ceil(low - kSlack);
        return from <= 0 ? 0 : from >= static_cast<double>(size) ? size : static_cast<std::int64_t>(from);
    }
    X2CT_BOTH static std::int64_t end_of(double high, std::int64_t size) {
        const double to = std::floor(high + kSlack) + 1;
        return to <= 0 ? 0 : to >= static_cast<double>(size) ? size : static_cast<std::int64_t>(to);
    }

    static constexpr double kSlack = 1e-6;  // of a pixel
};

}  // namespace x2ct::kernels
