// What a pull towards the X-rays does to voxels and rays one by one; see include/x2ct/consistency.h.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"

namespace x2ct::kernels {

/// Elements at a time at most, where a device takes several.
inline constexpr int kStrip = 64;

/// Work on elements that don't depend on each other.
struct Elements {
    std::int64_t size;

    X2CT_BOTH std::int64_t count() const { return size; }
    X2CT_BOTH std::int64_t line() const { return kStrip; }
    X2CT_BOTH std::int64_t cost() const { return 1; }
};

/// A piecewise linear map, constant beyond its ends: `to` of `from` where it is `unless` that has the same value.
struct KnotMap : Elements {
    const double* knots_from;  ///< rising
    const double* knots_to;
    int knots;
    const float* from;
    const float* unless;  ///< null: none is left out
    float* to;

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        for (std::int64_t i = begin; i < end; ++i) {
            if (unless == nullptr || from[i] != unless[i]) to[i] = mapped(from[i]);
        }
    }

    X2CT_BOTH float mapped(float value) const {
        if (!(value > knots_from[0])) return static_cast<float>(knots_to[0]);
        if (value >= knots_from[knots - 1]) return static_cast<float>(knots_to[knots - 1]);
        int k = 1;
        while (value >= knots_from[k]) ++k;
        const double slope = (knots_to[k] - knots_to[k - 1]) / (knots_from[k] - knots_from[k - 1]);
        return static_cast<float>(knots_to[k - 1] + (value - knots_from[k - 1]) * slope);
    }
};

/// z = clamp(mu + z, low, high)
struct Clamped : Elements {
    const float* mu;
    float* z;
    float low, high;

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        for (std::int64_t i = begin; i < end; ++i) {
            const float value = mu[i] + z[i];
            z[i] = value < low ? low : value > high ? high : value;
        }
    }
};

/// seen = target - seen - e dual, for rays that count; 0 for others.
struct Residual : Elements {
    const float* target;
    const float* dual;
    const float* counts;
    float* seen;
    float e;

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        for (std::int64_t i = begin; i < end; ++i) seen[i] = counts[i] * (target[i] - seen[i] - e * dual[i]);
    }
};

/// to += from
struct Added : Elements {
    const float* from;
    float* to;

    template <int Most>
    X2CT_BOTH void run(std::int64_t begin, std::int64_t end) const {
        for (std::int64_t i = begin; i < end; ++i) to[i] += from[i];
    }
};

}  // namespace x2ct::kernels
