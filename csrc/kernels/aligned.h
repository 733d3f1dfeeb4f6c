// Parallel rays along the grid's axes, one through the centres of each line of voxels: sums along lines, and the closed
// form of (e + A A^T)^-1, as work for a device. core/ray_operator_aligned.cpp has the derivation.
#pragma once

#include "kernels/joseph.h"

namespace x2ct::kernels {

/// One view: the axis that its rays follow, the two others (b the slower in memory), and a voxel's length along it. Its
/// rays are [size_b, size_c].
struct AlignedView {
    int axis;
    int b, c;
    double mm;
};

/// The sums along the rays of one view; 0 for rays that don't count.
struct AlignedForward {
    AlignedView view;
    std::int64_t shape[3];
    const float* volume;
    const float* counts;
    float* rays;

    X2CT_BOTH std::int64_t count() const { return shape[view.b] * shape[view.c]; }
    X2CT_BOTH std::int64_t line() const { return shape[view.c]; }
    X2CT_BOTH std::int64_t cost() const { return shape[view.axis]; }

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        const int width = Most == 1 ? 1 : static_cast<int>(end - begin);
        const std::int64_t depth = shape[view.axis], step = stride_of(shape, view.axis);
        const std::int64_t across = stride_of(shape, view.c);
        const float* from = volume + begin / line() * stride_of(shape, view.b) + begin % line() * across;
        double sums[Most] = {};
        for (std::int64_t a = 0; a < depth; ++a, from += step) {
            for (int i = 0; i < width; ++i) sums[i] += from[i * across];
        }
        for (int i = 0; i < width; ++i) rays[begin + i] = static_cast<float>(sums[i] * view.mm) * counts[begin + i];
    }
};

/// The transpose for all views at once: each voxel gets what the rays through it have.
struct AlignedBackward {
    AlignedView views[2];
    const float* rays[2];
    int number;  ///< of views
    std::int64_t shape[3];
    float* volume;

    X2CT_BOTH std::int64_t count() const { return shape[0] * shape[1] * shape[2]; }
    X2CT_BOTH std::int64_t line() const { return shape[2]; }
    X2CT_BOTH std::int64_t cost() const { return 1; }

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        const int width = Most == 1 ? 1 : static_cast<int>(end - begin);
        const std::int64_t x = begin / (shape[1] * shape[2]), y = begin / shape[2] % shape[1], z = begin % shape[2];
        float sums[Most] = {};
        for (int k = 0; k < number; ++k) {
            const auto mm = static_cast<float>(views[k].mm);
            if (views[k].axis == 2) {
                const float value = mm * rays[k][x * shape[1] + y];
                for (int i = 0; i < width; ++i) sums[i] += value;
            } else {
                const float* const from = rays[k] + (views[k].axis == 0 ? y : x) * shape[2] + z;
                for (int i = 0; i < width; ++i) sums[i] += mm * from[i];
            }
        }
        for (int i = 0; i < width; ++i) volume[begin + i] = sums[i];
    }
};

/// Of the rays of one view that count, by slice of the axis `third`: how many there are, and the sum of their
/// residuals.
struct SliceTotals {
    AlignedView view;
    std::int64_t shape[3];
    int third;
    const float* residual;
    const float* counts;
    double* totals;  ///< [slices, 2]

    X2CT_BOTH std::int64_t count() const { return shape[third]; }
    X2CT_BOTH std::int64_t line() const { return 1; }
    X2CT_BOTH std::int64_t cost() const { return shape[view.b == third ? view.c : view.b]; }

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t) const {
        const bool slow = view.b == third;
        const std::int64_t columns = shape[view.c], first = slow ? begin * columns : begin, step = slow ? 1 : columns;
        double number = 0, total = 0;
        for (std::int64_t i = 0; i < cost(); ++i) {
            const std::int64_t ray = first + i * step;
            if (counts[ray] != 0.0F) number += 1, total += residual[ray];
        }
        totals[2 * begin] = number, totals[2 * begin + 1] = total;
    }
};

/// step = (e + A A^T)^-1 residual for the rays of one view, from both views' totals.
struct SliceSteps {
    AlignedView view;
    std::int64_t shape[3];
    int third;
    const float* residual;
    const float* counts;
    float* step;
    double diagonal, other_diagonal;  ///< a and b: e + h^2 n of this view and of the other
    double cross;                     ///< c, the product of both views' h; 0 where there is no other
    const double* totals;             ///< this view's, [slices, 2]
    const double* other_totals;

    X2CT_BOTH std::int64_t count() const { return shape[view.b] * shape[view.c]; }
    X2CT_BOTH std::int64_t line() const { return shape[view.c]; }
    X2CT_BOTH std::int64_t cost() const { return 1; }

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        for (std::int64_t ray = begin; ray < end; ++ray) {
            const std::int64_t slice = view.b == third ? ray / shape[view.c] : ray % shape[view.c];
            const double value = residual[ray] - cross * sum_of_other(slice);
            step[ray] = counts[ray] != 0.0F ? static_cast<float>(value / diagonal) : 0.0F;
        }
    }

    /// The sum of the other view's steps in a slice, by Cramer's rule.
    X2CT_BOTH double sum_of_other(std::int64_t slice) const {
        if (cross == 0) return 0;
        const double number = totals[2 * slice], total = totals[2 * slice + 1];
        const double other_number = other_totals[2 * slice], other_total = other_totals[2 * slice + 1];
        const double determinant = diagonal * other_diagonal - cross * cross * number * other_number;
        return (diagonal * other_total - cross * other_number * total) / determinant;
    }
};

}  // namespace x2ct::kernels
