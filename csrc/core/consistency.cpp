// What consistency is told: when to pull, and in which units.
#include "x2ct/consistency.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <iterator>
#include <numeric>
#include <span>
#include <string_view>

#include "core/measured_view.h"
#include "core/ray_operator.h"
#include "kernels/ray_kernel.h"
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

namespace {

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

std::vector<float> here(Device& device, const Buffer& buffer) {
    std::vector<float> values(buffer.count());
    device.download(values.data(), buffer.data(), values.size());
    return values;
}

// x and mu of the knots, in double precision.
Buffer there(const std::shared_ptr<Device>& device, const AttenuationKnots& knots) {
    std::vector<double> both = knots.x;
    both.insert(both.end(), knots.mu.begin(), knots.mu.end());
    return doubles_on(device, both);
}

}  // namespace

struct Consistency::Place {
    Place(std::shared_ptr<Device> on, std::unique_ptr<RayOperator> along, std::size_t voxels,
          const AttenuationKnots& between)
        : device(std::move(on)),
          rays(std::move(along)),
          mu(device, voxels),
          z(device, voxels),
          target(device, rays->rays()),
          dual(device, rays->rays()),
          seen(device, rays->rays()),
          step(device, rays->rays()),
          knots(there(device, between)),
          number_of_knots(static_cast<int>(between.x.size())) {}

    void run(const RayKernel::Work& work) const { device->run(RayKernel{work}); }

    static kernels::Elements of(const Buffer& buffer) { return {static_cast<std::int64_t>(buffer.count())}; }

    // mu = that of D.
    void to_mu(const float* denoised) const {
        run(kernels::KnotMap{of(mu), x_knots(), mu_knots(), number_of_knots, denoised, nullptr, mu.data()});
    }

    // D = that of z, where the pull has moved anything.
    void to_denoised(float* denoised) const {
        run(kernels::KnotMap{of(z), mu_knots(), x_knots(), number_of_knots, z.data(), mu.data(), denoised});
    }

    const double* x_knots() const { return reinterpret_cast<const double*>(knots.data()); }
    const double* mu_knots() const { return x_knots() + number_of_knots; }

    std::shared_ptr<Device> device;
    std::unique_ptr<RayOperator> rays;
    Buffer mu, z;                     // of the voxels: attenuation before the pull, and after it
    Buffer target, dual, seen, step;  // of the rays
    Buffer knots;
    int number_of_knots;
    std::vector<float> uncorrected;  // on the host: mu of D before the first data-consistency step of a run
};

Consistency::Consistency(const VolumeGrid& grid, AttenuationKnots knots, std::vector<MeasuredView> views,
                         const ConsistencyOptions& options)
    : grid_(grid), shape_(grid.shape.begin(), grid.shape.end()), knots_(std::move(knots)), options_(options) {
    check(knots_);
    check(options_);
    if (views.empty()) throw InputError("consistency: X-rays: found none, expected at least one");
    for (MeasuredView& view : views) {
        check(grid, view);
        view = averaged(grid, view);
        detectors_.push_back(view.view);
        calibrated_.push_back(view.calibrated);
    }
    place_ = place_on(cpu_device(options_.threads));
    RayOperator& rays = *place_->rays;
    closed_ = rays.is_closed_form();
    if (options_.rounds == 0) options_.rounds = closed_ ? 4 : 2;

    // on the host, whose memory the buffers are
    float* const volume = place_->z.data();
    std::fill_n(volume, place_->z.count(), 1.0F);
    std::vector<float> length(rays.rays());
    rays.forward(volume, length.data());
    rays.backward(length.data(), volume);
    scale_ = *std::max_element(volume, volume + place_->z.count()) / static_cast<double>(views.size());

    const auto within = rays_within(grid, views, options_.threads);
    measured_.resize(rays.rays());
    counts_.resize(rays.rays());
    double most = 0;
    for (std::size_t view = 0; view < views.size(); ++view) {
        rays.gather(view, views[view].image, measured_.data());
        rays.gather(view, within[view], counts_.data());
        double met = 0, counted = 0;
        for (std::size_t ray = rays.first()[view]; ray < rays.first()[view + 1]; ++ray) {
            if (length[ray] == 0) counts_[ray] = 0;
            if (length[ray] == 0 || measured_[ray] <= kAirIntegral) continue;
            met += 1;
            counted += counts_[ray];
        }
        report_.push_back({.name = views[view].name, .rays = met > 0 ? counted / met : 0});
        most = std::max(most, report_.back().rays);
    }
    if (most < kFewestRays) {
        throw InputError(
            "consistency: rays: found none known to miss the body outside of the grid, expected some; give a second "
            "view that shows where the body ends, or leave consistency off");
    }
    rays.count(counts_);
}

Consistency::~Consistency() = default;

std::unique_ptr<Consistency::Place> Consistency::place_on(const std::shared_ptr<Device>& device) const {
    std::unique_ptr<RayOperator> rays;
    if (options_.closed) rays = aligned_rays(grid_, detectors_, device);
    if (!rays) rays = joseph_rays(grid_, detectors_, options_.cg_steps, device, options_.threads);
    if (!counts_.empty()) rays->count(counts_);
    return std::make_unique<Place>(device, std::move(rays), static_cast<std::size_t>(volume_of(shape_)), knots_);
}

bool Consistency::works_on(const std::shared_ptr<Device>& device) {
    const bool is_host = device->stream() == nullptr && place_->device->stream() == nullptr;
    if (!is_host && device != place_->device) place_ = place_on(device);
    return true;
}

void Consistency::apply(int row, int, double, float* denoised) {
    if (row == 0) forget();
    const auto& after = options_.evaluations;
    if (options_.gamma == 0 || (!after.empty() && std::ranges::find(after, row + 1) == after.end())) return;
    const Place& place = *place_;
    place.to_mu(denoised);
    if (place_->uncorrected.empty()) place_->uncorrected = here(*place.device, place.mu);
    solve();
    place.to_denoised(denoised);
}

void Consistency::pull(float* mu) {
    forget();
    if (options_.gamma == 0) return;
    place_->device->upload(place_->mu.data(), mu, place_->mu.count());
    solve();
    place_->device->download(mu, place_->z.data(), place_->z.count());
}

std::span<const float> Consistency::uncorrected() const { return place_->uncorrected; }

// l = 0
void Consistency::forget() {
    place_->uncorrected.clear();
    const std::vector<float> zeros(place_->dual.count());
    place_->device->upload(place_->dual.data(), zeros.data(), zeros.size());
}

// z of mu, from the dual that is there, which is moved on.
void Consistency::solve() {
    const Place& place = *place_;
    const RayOperator& rays = *place.rays;
    const double e = scale_ / options_.gamma;
    float *const seen = place.seen.data(), *const dual = place.dual.data();
    rays.forward(place.mu.data(), seen);
    const std::vector<float> before = here(*place.device, place.seen), target = fitted(before);
    report_rms(target, before, &ViewConsistency::rms_before);
    place.device->upload(place.target.data(), target.data(), target.size());
    for (int round = 0; round < options_.rounds; ++round) {
        move_to_dual();
        rays.forward(place.z.data(), seen);
        place.run(kernels::Residual{place.of(place.seen), place.target.data(), dual, rays.counts_there(), seen,
                                    static_cast<float>(e)});
        rays.solve(e, seen, place.step.data(), place.z.data());
        place.run(kernels::Added{place.of(place.dual), place.step.data(), dual});
    }
    move_to_dual();
    rays.forward(place.z.data(), seen);
    report_rms(target, here(*place.device, place.seen), &ViewConsistency::rms_after);
}

// z = clamp(mu + A^T dual).
void Consistency::move_to_dual() {
    const Place& place = *place_;
    place.rays->backward(place.dual.data(), place.z.data());
    const auto low = static_cast<float>(knots_.mu.front()), high = static_cast<float>(knots_.mu.back());
    place.run(kernels::Clamped{place.of(place.z), place.mu.data(), place.z.data(), low, high});
}

// What D's X-rays should be: what was measured, an X-ray that is not calibrated on the scale on which D explains it
// best: y = a A(D) + b by least squares over the rays that count.
std::vector<float> Consistency::fitted(const std::vector<float>& seen) {
    std::vector<float> target = measured_;
    const std::vector<std::size_t>& first = place_->rays->first();
    for (std::size_t view = 0; view < report_.size(); ++view) {
        if (calibrated_[view] || report_[view].rays == 0) continue;
        double n = 0, p = 0, y = 0, pp = 0, py = 0, yy = 0;
        const std::size_t begin = first[view], end = first[view + 1];
        for (std::size_t ray = begin; ray < end; ++ray) {
            if (counts_[ray] == 0) continue;
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
        const std::vector<std::size_t>& first = place_->rays->first();
        report_[view].*where = rms(residual.data(), counts_.data(), first[view], first[view + 1]);
    }
}

}  // namespace x2ct
