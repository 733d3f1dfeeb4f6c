#include "x2ct/consistency.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "core/measured_view.h"
#include "core/parallel.h"
#include "core/ray_operator.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr std::int64_t kGrain = 1 << 15;
constexpr double kFewestRays = 0.01;         // of those that meet body and grid
constexpr double kWeakestCorrelation = 0.5;  // of an X-ray that is to be fitted with the one that D gives

// Piecewise linear, constant beyond the ends.
float interpolate(const std::vector<double>& from, const std::vector<double>& to, float value) {
    if (!(value > from.front())) return static_cast<float>(to.front());
    if (value >= from.back()) return static_cast<float>(to.back());
    std::size_t k = 1;
    while (value >= from[k]) ++k;
    const double slope = (to[k] - to[k - 1]) / (from[k] - from[k - 1]);
    return static_cast<float>(to[k - 1] + (value - from[k - 1]) * slope);
}

void check(const AttenuationKnots& knots) {
    const auto rises = [](const std::vector<double>& values) {
        return std::ranges::adjacent_find(values, [](double a, double b) { return !(a < b); }) == values.end();
    };
    if (knots.x.size() != knots.mu.size() || knots.x.size() < 2 || !rises(knots.x) || !rises(knots.mu) ||
        knots.mu.front() < 0) {
        throw InputError("consistency: knots: found others, expected x and mu strictly increasing, mu from 0 or above");
    }
}

void check(const ConsistencyOptions& options) {
    if (!(options.gamma >= 0) || options.gamma > 1e6) {
        throw InputError("consistency: gamma: found " + std::to_string(options.gamma) + ", expected 0 to 1e6");
    }
    if (options.rounds < 0 || options.cg_steps < 1) {
        throw InputError("consistency: rounds, CG steps: found " + std::to_string(options.rounds) + " and " +
                         std::to_string(options.cg_steps) + ", expected at least 0 and 1");
    }
}

double rms(const float* values, const float* counts, std::size_t begin, std::size_t end) {
    double sum = 0, number = 0;
    for (std::size_t ray = begin; ray < end; ++ray) {
        sum += counts[ray] * static_cast<double>(values[ray]) * values[ray];
        number += counts[ray];
    }
    return number > 0 ? std::sqrt(sum / number) : 0;
}

}  // namespace

Consistency::Consistency(const VolumeGrid& grid, AttenuationKnots knots, std::vector<MeasuredView> views,
                         const ConsistencyOptions& options)
    : shape_(grid.shape.begin(), grid.shape.end()), knots_(std::move(knots)), options_(options) {
    check(knots_);
    check(options_);
    if (views.empty()) throw InputError("consistency: X-rays: found none, expected at least one");
    std::vector<DetectorView> detectors;
    for (MeasuredView& view : views) {
        check(grid, view);
        view = averaged(grid, view);
        detectors.push_back(view.view);
        calibrated_.push_back(view.calibrated);
    }
    if (options_.closed) rays_ = aligned_rays(grid, detectors, options_.threads);
    if (!rays_) rays_ = joseph_rays(grid, detectors, options_.cg_steps, options_.threads);
    if (options_.rounds == 0) options_.rounds = rays_->is_closed_form() ? 4 : 2;

    const auto count = static_cast<std::size_t>(volume_of(shape_));
    mu_.resize(count);
    z_.assign(count, 1.0F);
    measured_.resize(rays_->rays());
    dual_.assign(rays_->rays(), 0.0F);
    std::vector<float> length(rays_->rays()), counts(rays_->rays());
    rays_->forward(z_.data(), length.data());
    rays_->backward(length.data(), z_.data());
    scale_ = *std::ranges::max_element(z_) / static_cast<double>(views.size());

    const auto within = rays_within(grid, views, options_.threads);
    double most = 0;
    for (std::size_t view = 0; view < views.size(); ++view) {
        rays_->gather(view, views[view].image, measured_.data());
        rays_->gather(view, within[view], counts.data());
        double met = 0, counted = 0;
        for (std::size_t ray = rays_->first()[view]; ray < rays_->first()[view + 1]; ++ray) {
            if (length[ray] == 0) counts[ray] = 0;
            if (length[ray] == 0 || measured_[ray] <= kAirIntegral) continue;
            met += 1;
            counted += counts[ray];
        }
        report_.push_back({.name = views[view].name, .rays = met > 0 ? counted / met : 0});
        most = std::max(most, report_.back().rays);
    }
    if (most < kFewestRays) {
        throw InputError(
            "consistency: rays: found none known to miss the body outside of the grid, expected some; give a second "
            "view that shows where the body ends, or leave consistency off");
    }
    rays_->count(std::move(counts));
}

Consistency::~Consistency() = default;

bool Consistency::is_closed_form() const { return rays_->is_closed_form(); }

void Consistency::apply(int row, int, double, float* denoised) {
    if (row == 0) std::ranges::fill(dual_, 0.0F);
    const auto& after = options_.evaluations;
    if (options_.gamma == 0 || (!after.empty() && std::ranges::find(after, row + 1) == after.end())) return;
    const auto count = static_cast<std::int64_t>(mu_.size());
    parallel_for(count, kGrain, 1, options_.threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) mu_[i] = interpolate(knots_.x, knots_.mu, denoised[i]);
    });
    solve();
    parallel_for(count, kGrain, 1, options_.threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            if (z_[i] != mu_[i]) denoised[i] = interpolate(knots_.mu, knots_.x, z_[i]);
        }
    });
}

void Consistency::pull(float* mu) {
    std::ranges::fill(dual_, 0.0F);
    if (options_.gamma == 0) return;
    std::copy_n(mu, mu_.size(), mu_.begin());
    solve();
    std::ranges::copy(z_, mu);
}

// z of mu_, from the dual that is there, which is moved on.
void Consistency::solve() {
    const double e = scale_ / options_.gamma;
    const std::vector<float>& counts = rays_->counts();
    std::vector<float> seen(rays_->rays()), step(rays_->rays());
    rays_->forward(mu_.data(), seen.data());
    const std::vector<float> target = fitted(seen);
    report_rms(target, seen, &ViewConsistency::rms_before);
    for (int round = 0; round < options_.rounds; ++round) {
        move_to(dual_);
        rays_->forward(z_.data(), seen.data());
        for (std::size_t ray = 0; ray < seen.size(); ++ray) {
            seen[ray] = counts[ray] * (target[ray] - seen[ray] - static_cast<float>(e) * dual_[ray]);
        }
        rays_->solve(e, seen.data(), step.data(), z_.data());
        for (std::size_t ray = 0; ray < seen.size(); ++ray) dual_[ray] += step[ray];
    }
    move_to(dual_);
    rays_->forward(z_.data(), seen.data());
    report_rms(target, seen, &ViewConsistency::rms_after);
}

// z = clamp(mu + A^T dual).
void Consistency::move_to(const std::vector<float>& dual) {
    rays_->backward(dual.data(), z_.data());
    const auto low = static_cast<float>(knots_.mu.front()), high = static_cast<float>(knots_.mu.back());
    parallel_for(static_cast<std::int64_t>(z_.size()), kGrain, 1, options_.threads,
                 [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t i = begin; i < end; ++i) z_[i] = std::clamp(mu_[i] + z_[i], low, high);
                 });
}

// What D's X-rays should be: what was measured, an X-ray that is not calibrated on the scale on which D explains it
// best: y = a A(D) + b by least squares over the rays that count.
std::vector<float> Consistency::fitted(const std::vector<float>& seen) {
    std::vector<float> target = measured_;
    for (std::size_t view = 0; view < report_.size(); ++view) {
        if (calibrated_[view] || report_[view].rays == 0) continue;
        double n = 0, p = 0, y = 0, pp = 0, py = 0, yy = 0;
        const std::size_t begin = rays_->first()[view], end = rays_->first()[view + 1];
        for (std::size_t ray = begin; ray < end; ++ray) {
            if (rays_->counts()[ray] == 0) continue;
            n += 1, p += seen[ray], y += measured_[ray];
            pp += static_cast<double>(seen[ray]) * seen[ray];
            py += static_cast<double>(seen[ray]) * measured_[ray];
            yy += static_cast<double>(measured_[ray]) * measured_[ray];
        }
        const double var_p = pp - p * p / n, var_y = yy - y * y / n, cov = py - p * y / n;
        const double correlation = var_p > 0 && var_y > 0 ? cov / std::sqrt(var_p * var_y) : 0;
        if (!(correlation >= kWeakestCorrelation)) {
            throw Error("consistency: " + report_[view].name +
                        ": fit of the uncalibrated X-ray: found a correlation of " + std::to_string(correlation) +
                        " with the CT's own, expected at least 0.5; give line integrals, or "
                        "leave consistency off");
        }
        report_[view].scale = cov / var_p;
        report_[view].offset = (y - report_[view].scale * p) / n;
        for (std::size_t ray = begin; ray < end; ++ray) {
            target[ray] = static_cast<float>((measured_[ray] - report_[view].offset) / report_[view].scale);
        }
    }
    return target;
}

void Consistency::report_rms(const std::vector<float>& target, const std::vector<float>& seen,
                             double ViewConsistency::* where) {
    std::vector<float> residual(seen.size());
    std::ranges::transform(target, seen, residual.begin(), std::minus<>());
    for (std::size_t view = 0; view < report_.size(); ++view) {
        report_[view].*where =
            rms(residual.data(), rays_->counts().data(), rays_->first()[view], rays_->first()[view + 1]);
    }
}

}  // namespace x2ct
