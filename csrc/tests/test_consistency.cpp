// Consistency: what a round solves is what dense algebra says, with and without the closed form; the clamp's answer is
// the constrained minimum; rays that may meet body outside of the grid don't count.
#include "x2ct/consistency.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "check.h"
#include "core/measured_view.h"
#include "core/ray_operator.h"
#include "x2ct/error.h"

namespace {

using x2ct::AttenuationKnots;
using x2ct::Consistency;
using x2ct::ConsistencyOptions;
using x2ct::DetectorView;
using x2ct::MeasuredView;
using x2ct::VolumeGrid;

const VolumeGrid kGrid{{8, 7, 6}, {20, 0, 0, -70, 0, 25, 0, -75, 0, 0, 30, -75, 0, 0, 0, 1}};
const std::size_t kCount = 8 * 7 * 6;
std::shared_ptr<x2ct::Device> host() { return x2ct::cpu_device(1); }
AttenuationKnots knots() { return {{-1, -0.45, 0.6, 1}, {0, 0.017, 0.032, 0.05}}; }

// One pixel a line of voxels, and a border of `border` pixels on each side.
DetectorView along_y(int border = 2) {
    return {{-1.0 / 20, 0, 0, 3.5 + border, 0, 0, -1.0 / 30, 2.5 + border, 0, 0, 0, 1}, 6 + 2 * border, 8 + 2 * border};
}

DetectorView along_x(int border = 2) {
    return {{0, -1.0 / 25, 0, 3.0 + border, 0, 0, -1.0 / 30, 2.5 + border, 0, 0, 0, 1}, 6 + 2 * border, 7 + 2 * border};
}

DetectorView oblique_cone() {
    // Source 1500 mm away at 25 degrees, pixels of 25 mm at the origin.
    const double s = std::sin(25 * 3.14159265358979 / 180), c = std::cos(25 * 3.14159265358979 / 180), d = 1500;
    const double middle = 7.5;
    std::array<double, 12> m{-c / 25, s / 25, 0, 0, 0, 0, -1.0 / 25, 0, -s / d, -c / d, 0, 1};
    for (int k = 0; k < 4; ++k) m[k] += middle * m[8 + k], m[4 + k] += middle * m[8 + k];
    return {m, 16, 16};
}

std::vector<float> pseudo_random(std::size_t count, std::uint32_t seed, float low, float high) {
    std::vector<float> values(count);
    for (float& value : values) {
        seed = seed * 1664525U + 1013904223U;
        value = low + (high - low) * static_cast<float>(seed >> 8U) / 16777216.0F;
    }
    return values;
}

MeasuredView measured(const char* name, const DetectorView& view, const VolumeGrid& grid,
                      const std::vector<float>& volume) {
    MeasuredView result{name, view, std::vector<float>(static_cast<std::size_t>(view.rows * view.cols)), {}, true};
    x2ct::project(volume.data(), grid, view, result.image.data(), 1);
    result.measured.assign(result.image.size(), 1);
    return result;
}

std::vector<MeasuredView> aligned_pair(const std::vector<float>& volume) {
    return {measured("ap", along_y(), kGrid, volume), measured("lateral", along_x(), kGrid, volume)};
}

// Three views, for which there is no closed form; two of them see that the body ends where the grid does.
std::vector<MeasuredView> with_cone(const std::vector<float>& volume) {
    auto views = aligned_pair(volume);
    views.push_back(measured("oblique", oblique_cone(), kGrid, volume));
    return views;
}

ConsistencyOptions strength(double gamma, int rounds, int cg_steps = 200, bool closed = true) {
    return {.gamma = gamma, .evaluations = {}, .rounds = rounds, .cg_steps = cg_steps, .closed = closed, .threads = 1};
}

// A as a dense matrix, one row a ray that counts, and y.
struct Dense {
    std::vector<std::vector<double>> a;
    std::vector<double> y;
    double scale = 0;  // s^2

    explicit Dense(const std::vector<MeasuredView>& views) {
        const auto within = x2ct::rays_within(kGrid, views, 1);
        std::vector<std::vector<double>> all;
        for (std::size_t k = 0; k < views.size(); ++k) {
            const std::size_t pixels = views[k].image.size(), first = all.size();
            all.resize(first + pixels, std::vector<double>(kCount));
            std::vector<float> unit(kCount), seen(pixels);
            for (std::size_t voxel = 0; voxel < kCount; ++voxel) {
                unit[voxel] = 1;
                x2ct::project(unit.data(), kGrid, views[k].view, seen.data(), 1);
                for (std::size_t i = 0; i < pixels; ++i) all[first + i][voxel] = seen[i];
                unit[voxel] = 0;
            }
            for (std::size_t i = 0; i < pixels; ++i) {
                if (within[k][i] != 0) a.push_back(all[first + i]), y.push_back(views[k].image[i]);
            }
        }
        std::vector<double> columns(kCount);
        for (const auto& row : all) {
            double length = 0;
            for (const double value : row) length += value;
            for (std::size_t voxel = 0; voxel < kCount; ++voxel) columns[voxel] += row[voxel] * length;
        }
        scale = *std::ranges::max_element(columns) / static_cast<double>(views.size());
    }

    std::vector<double> residual(const std::vector<double>& z) const {
        std::vector<double> r(y);
        for (std::size_t i = 0; i < r.size(); ++i) {
            for (std::size_t voxel = 0; voxel < kCount; ++voxel) r[i] -= a[i][voxel] * z[voxel];
        }
        return r;
    }

    // z - mu - gamma / s^2 A^T (y - A z): 0 at the minimum without a clamp.
    std::vector<double> gradient(const std::vector<double>& z, const std::vector<float>& mu, double gamma) const {
        std::vector<double> g(kCount);
        const auto r = residual(z);
        for (std::size_t voxel = 0; voxel < kCount; ++voxel) {
            g[voxel] = z[voxel] - mu[voxel];
            for (std::size_t i = 0; i < r.size(); ++i) g[voxel] -= gamma / scale * a[i][voxel] * r[i];
        }
        return g;
    }

    // The minimum without a clamp: (1 + gamma / s^2 A^T A) z = mu + gamma / s^2 A^T y, by Gauss-Jordan.
    std::vector<double> least_squares(const std::vector<float>& mu, double gamma) const {
        std::vector<std::vector<double>> m(kCount, std::vector<double>(kCount + 1));
        for (std::size_t p = 0; p < kCount; ++p) {
            m[p][p] = 1;
            m[p][kCount] = mu[p];
        }
        for (std::size_t i = 0; i < a.size(); ++i) {
            for (std::size_t p = 0; p < kCount; ++p) {
                if (a[i][p] == 0) continue;
                for (std::size_t q = 0; q < kCount; ++q) m[p][q] += gamma / scale * a[i][p] * a[i][q];
                m[p][kCount] += gamma / scale * a[i][p] * y[i];
            }
        }
        for (std::size_t p = 0; p < kCount; ++p) {  // positive definite: no pivoting
            for (std::size_t q = 0; q < kCount; ++q) {
                if (q == p) continue;
                const double factor = m[q][p] / m[p][p];
                for (std::size_t k = p; k <= kCount; ++k) m[q][k] -= factor * m[p][k];
            }
        }
        std::vector<double> z(kCount);
        for (std::size_t p = 0; p < kCount; ++p) z[p] = m[p][kCount] / m[p][p];
        return z;
    }
};

template <typename A, typename B>
double worst(const A& a, const B& b) {
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(double{a[i]} - double{b[i]}));
    return most;
}

std::vector<float> pulled(std::vector<float> mu, const std::vector<MeasuredView>& views,
                          const ConsistencyOptions& options) {
    Consistency consistency(kGrid, knots(), views, options);
    consistency.pull(mu.data());
    return mu;
}

// Far enough from both ends that nothing is clamped.
std::vector<float> plain_truth() { return pseudo_random(kCount, 1, 0.018F, 0.022F); }
std::vector<float> plain_guess() { return pseudo_random(kCount, 2, 0.016F, 0.022F); }

void the_closed_form_is_cg_is_dense_least_squares() {
    auto views = aligned_pair(plain_truth());
    for (std::size_t i = 20; i < 50; ++i) views[0].measured[i] = 0;  // what wasn't measured leaves gaps
    const Dense dense(views);
    CHECK(Consistency(kGrid, knots(), views, strength(1, 1)).is_closed_form());
    CHECK(!Consistency(kGrid, knots(), views, strength(1, 1, 4, false)).is_closed_form());
    for (const double gamma : {0.1, 1.0, 30.0}) {
        const auto wanted = dense.least_squares(plain_guess(), gamma);
        CHECK(worst(wanted, plain_guess()) > 1e-4);
        CHECK_CLOSE(worst(pulled(plain_guess(), views, strength(gamma, 1)), wanted), 0, 1e-8);
        CHECK_CLOSE(worst(pulled(plain_guess(), views, strength(gamma, 1, 200, false)), wanted), 0, 1e-7);
    }
}

void cg_is_dense_least_squares_for_a_cone() {
    const auto views = with_cone(plain_truth());
    const auto wanted = Dense(views).least_squares(plain_guess(), 3);
    CHECK(worst(wanted, plain_guess()) > 1e-4);
    CHECK_CLOSE(worst(pulled(plain_guess(), views, strength(3, 1, 30)), wanted), 0, 1e-7);
    // rounds go on where the few steps of the one before had stopped
    CHECK(worst(pulled(plain_guess(), views, strength(3, 6, 2)), wanted) <
          0.2 * worst(pulled(plain_guess(), views, strength(3, 1, 2)), wanted));
}

void one_view_has_its_closed_form_too() {
    const auto views = aligned_pair(plain_truth());
    const auto rays = x2ct::aligned_rays(kGrid, {views[0].view}, host());
    const auto same = x2ct::joseph_rays(kGrid, {views[0].view}, 50, host());
    std::vector<float> by_line(rays->rays()), by_pixel(same->rays()), step(rays->rays()), wanted(same->rays()),
        work(kCount);
    rays->gather(0, views[0].image, by_line.data());
    same->gather(0, views[0].image, by_pixel.data());
    rays->solve(500, by_line.data(), step.data(), work.data());
    same->solve(500, by_pixel.data(), wanted.data(), work.data());
    std::vector<float> gathered(rays->rays());
    rays->gather(0, wanted, gathered.data());
    CHECK(worst(gathered, std::vector<float>(gathered.size())) > 1e-4);
    CHECK_CLOSE(worst(gathered, step), 0, 1e-8);
}

void transposes_match() {
    for (const bool aligned : {true, false}) {
        const std::vector<DetectorView> views = {aligned ? along_y() : oblique_cone(), along_x()};
        auto rays = aligned ? x2ct::aligned_rays(kGrid, views, host()) : x2ct::joseph_rays(kGrid, views, 1, host());
        const auto volume = pseudo_random(kCount, 3, -1, 1);
        auto image = pseudo_random(rays->rays(), 4, -1, 1);
        for (std::size_t i = 0; i < image.size(); ++i) image[i] *= rays->counts()[i];
        std::vector<float> seen(image.size()), spread(kCount);
        rays->forward(volume.data(), seen.data());
        rays->backward(image.data(), spread.data());
        double left = 0, right = 0;
        for (std::size_t i = 0; i < image.size(); ++i) left += double{seen[i]} * image[i];
        for (std::size_t i = 0; i < kCount; ++i) right += double{volume[i]} * spread[i];
        CHECK(std::abs(left) > 1);
        CHECK_CLOSE(left / right, 1, 1e-5);
    }
}

void aligned_sums_are_the_projector() {
    const VolumeGrid turned{{6, 7, 8}, {0, 0, 20, -70, 25, 0, 0, -75, 0, -30, 0, 75, 0, 0, 0, 1}};
    const std::vector<DetectorView> views = {along_y(), along_x()};
    for (const VolumeGrid& grid : {kGrid, turned}) {
        const auto sums = x2ct::aligned_rays(grid, views, host());
        const auto integrals = x2ct::joseph_rays(grid, views, 1, host());
        CHECK(sums != nullptr);
        if (!sums) continue;
        std::vector<float> a(sums->rays()), b(integrals->rays()), gathered(sums->rays());
        sums->forward(plain_truth().data(), a.data());
        integrals->forward(plain_truth().data(), b.data());
        for (std::size_t k = 0; k < 2; ++k) {
            const std::vector<float> image(b.begin() + static_cast<std::ptrdiff_t>(integrals->first()[k]),
                                           b.begin() + static_cast<std::ptrdiff_t>(integrals->first()[k + 1]));
            sums->gather(k, image, gathered.data());
        }
        CHECK(worst(a, std::vector<float>(a.size())) > 1);
        CHECK_CLOSE(worst(a, gathered), 0, 1e-5);
    }
    CHECK(x2ct::aligned_rays(kGrid, {along_y(), along_y()}, host()) == nullptr);  // along the same axis
    CHECK(x2ct::aligned_rays(kGrid, {oblique_cone()}, host()) == nullptr);
    DetectorView between = along_y();
    between.matrix[3] += 0.25;
    CHECK(x2ct::aligned_rays(kGrid, {between}, host()) == nullptr);
}

void a_strong_pull_reprojects() {
    for (const auto& views : {aligned_pair(plain_truth()), with_cone(plain_truth())}) {
        Consistency consistency(kGrid, knots(), views, strength(1e6, 4));
        std::vector<float> mu = plain_guess();
        consistency.pull(mu.data());
        for (const auto& view : consistency.views()) {
            CHECK(view.rays > 0.9);
            CHECK(view.rms_before > 0.05);
            CHECK(view.rms_after < 1e-4);
        }
    }
}

void no_pull_changes_no_bit() {
    Consistency consistency(kGrid, knots(), aligned_pair(plain_truth()), strength(0, 3));
    const auto before = pseudo_random(kCount, 5, -1.3F, 1.3F);
    auto d = before;
    consistency.apply(0, 1, 1.0, d.data());
    CHECK(d == before);
}

void the_clamp_gives_the_constrained_minimum() {
    // Voxels at both ends, and measurements that pull beyond them.
    auto truth = pseudo_random(kCount, 6, -0.01F, 0.06F);
    for (float& value : truth) value = std::clamp(value, 0.0F, 0.05F);
    auto guess = pseudo_random(kCount, 7, -0.01F, 0.06F);
    for (float& value : guess) value = std::clamp(value, 0.0F, 0.05F);
    for (const auto& views : {aligned_pair(truth), with_cone(truth)}) {
        const auto z = pulled(guess, views, strength(3, 300, 30));
        const std::vector<double> found(z.begin(), z.end());
        const auto gradient = Dense(views).gradient(found, guess, 3);
        int low = 0, high = 0;
        double most = 0;  // of what is left of the gradient where it could still be followed
        for (std::size_t i = 0; i < kCount; ++i) {
            CHECK(z[i] >= 0 && z[i] <= 0.05F);
            low += z[i] == 0;
            high += z[i] == 0.05F;
            const double slope = z[i] == 0 ? std::min(gradient[i], 0.0) : gradient[i];
            most = std::max(most, std::abs(z[i] == 0.05F ? std::max(slope, 0.0) : slope));
        }
        CHECK_CLOSE(most, 0, 1e-6);
        CHECK(low > 10 && high > 10);
    }
}

void only_what_the_pull_moves_changes() {
    // D beyond the knots means air or the densest: where it stays that, it keeps its bits.
    auto views = aligned_pair(std::vector<float>(kCount, 0.02F));
    Consistency consistency(kGrid, knots(), views, strength(1, 4));
    std::vector<float> d(kCount, 0.3F);
    d[7] = -1.25F;
    const auto before = d;
    consistency.apply(0, 2, 1.0, d.data());
    CHECK(d[7] == -1.25F);  // the whole is too dense, so this stays below 0 and is clamped
    CHECK(d[8] < before[8]);
    ConsistencyOptions last = strength(1, 4);
    last.evaluations = {2};
    Consistency late(kGrid, knots(), views, last);
    d = before;
    late.apply(0, 2, 1.0, d.data());
    CHECK(d == before);
    late.apply(1, 2, 1.0, d.data());
    CHECK(d != before);
}

void runs_and_threads_change_no_bit() {
    ConsistencyOptions many = strength(2, 2, 3);
    many.threads = 3;
    for (const auto& views : {aligned_pair(plain_truth()), with_cone(plain_truth())}) {
        Consistency one(kGrid, knots(), views, strength(2, 2, 3)), other(kGrid, knots(), views, many);
        const auto before = pseudo_random(kCount, 8, -0.9F, 0.9F);
        std::vector<std::vector<float>> results;
        for (Consistency* consistency : {&one, &one, &other}) {
            auto d = before;
            consistency->apply(0, 2, 1.0, d.data());
            consistency->apply(1, 2, 1.0, d.data());
            results.push_back(d);
        }
        CHECK(results[0] == results[1]);
        CHECK(results[0] == results[2]);
    }
}

void a_step_starts_where_the_last_one_ended() {
    const auto views = with_cone(plain_truth());
    Consistency consistency(kGrid, knots(), views, strength(30, 1, 2));
    std::vector<float> rms;
    for (int row = 0; row < 4; ++row) {
        std::vector<float> d(kCount, 0.1F);
        consistency.apply(row, 4, 1.0, d.data());
        rms.push_back(static_cast<float>(consistency.views()[0].rms_after));
    }
    CHECK(rms[1] < rms[0] && rms[2] < rms[1] && rms[3] < 0.7F * rms[0]);
}

void fine_pixels_are_averaged_to_voxels() {
    DetectorView fine = along_y(0);
    fine.rows *= 3, fine.cols *= 2;
    for (int k = 0; k < 4; ++k) fine.matrix[k] *= 2, fine.matrix[4 + k] *= 3;
    fine.matrix[3] += 0.5, fine.matrix[7] += 1;
    MeasuredView view{"ap", fine, std::vector<float>(static_cast<std::size_t>(fine.rows * fine.cols)), {}, true};
    for (std::size_t i = 0; i < view.image.size(); ++i) view.image[i] = static_cast<float>(i);
    view.measured.assign(view.image.size(), 1);
    view.measured[0] = 0;
    const MeasuredView coarse = x2ct::averaged(kGrid, view);
    const DetectorView wanted = along_y(0);
    CHECK(coarse.view.rows == wanted.rows && coarse.view.cols == wanted.cols);
    CHECK_CLOSE(worst(coarse.view.matrix, wanted.matrix), 0, 1e-12);
    CHECK_CLOSE(coarse.image[0], (0 + 1 + 16 + 17 + 32 + 33) / 6.0, 1e-5);
    CHECK(coarse.measured[0] == 0 && coarse.measured[1] == 1);
}

// A trunk within the grid, and an arm beside it that is not; wider than kGrid by five voxels on either side.
void rays_count_that_miss_what_is_outside() {
    const VolumeGrid wide{{18, 7, 6}, {20, 0, 0, -170, 0, 25, 0, -75, 0, 0, 30, -75, 0, 0, 0, 1}};
    std::vector<float> body(18 * 7 * 6);
    const auto at = [&](int x, int y, int z) -> float& {
        return body.at((std::size_t(x) * 7 + std::size_t(y)) * 6 + std::size_t(z));
    };
    for (int x = 6; x < 12; ++x) {
        for (int y = 1; y < 6; ++y) {
            for (int z = 0; z < 6; ++z) at(x, y, z) = 0.02F;
        }
    }
    for (int x = 2; x < 4; ++x) {
        for (int z = 3; z < 6; ++z) at(x, 3, z) = 0.02F;  // in the upper half
    }
    const std::vector<MeasuredView> views = {measured("ap", along_y(6), wide, body),
                                             measured("lateral", along_x(2), wide, body)};
    const auto within = x2ct::rays_within(kGrid, views, 1);
    CHECK(std::ranges::all_of(within[0], [](auto counts) { return counts != 0; }) == false);  // the arm's own rays
    for (int v = 0; v < views[1].view.rows; ++v) {
        for (int u = 0; u < views[1].view.cols; ++u) {
            const int y = 8 - u, z = 7 - v;  // voxel indices
            const bool meets = y >= 1 && y < 6 && z >= 0 && z < 6;
            CHECK((within[1][static_cast<std::size_t>(v * views[1].view.cols + u)] != 0) == !(meets && z >= 3));
        }
    }
    for (int x = 0; x < 8; ++x) {
        for (int z = 0; z < 6; ++z) {  // the trunk's frontal rays: front and back of it are seen to be air
            const int u = 13 - x - 0, v = 11 - z;
            if (v >= 0 && v < views[0].view.rows)
                CHECK(within[0][static_cast<std::size_t>(v * views[0].view.cols + u)] != 0);
        }
    }
    // one view alone can't say where the body ends
    CHECK_THROWS(x2ct::InputError, Consistency(kGrid, knots(), {views[0]}, strength(1, 1)));
    // and a detector's edge in the body can't either
    auto cut = views;
    cut[0] = measured("ap", along_y(0), wide, body);
    for (auto& view : cut) view.measured.assign(view.image.size(), 1);
    for (std::int64_t v = 0; v < cut[0].view.rows; ++v) cut[0].image[v * cut[0].view.cols] = 1;
    cut[1].measured[0] = 0;
    const auto unknown = x2ct::rays_within(kGrid, cut, 1);
    CHECK(within[1][0] == 1 && unknown[1][0] == 0);
    CHECK(unknown[1][static_cast<std::size_t>(4 * views[1].view.cols + 5)] == 0);
}

void an_uncalibrated_xray_is_fitted() {
    auto views = aligned_pair(plain_truth());
    for (auto& view : views) {
        view.calibrated = false;
        for (float& value : view.image) value = 2.5F * value + 0.02F;
    }
    Consistency consistency(kGrid, knots(), views, strength(100, 4));
    auto mu = plain_truth();
    consistency.pull(mu.data());
    for (const auto& view : consistency.views()) {
        CHECK_CLOSE(view.scale, 2.5, 1e-3);
        CHECK_CLOSE(view.offset, 0.02, 1e-3);
        CHECK(view.rms_before < 1e-3);
    }
    CHECK_CLOSE(worst(mu, plain_truth()), 0, 1e-5);
    // another CT's X-ray is refused, not fitted
    for (std::size_t i = 0; i < views[0].image.size(); ++i) {
        if (views[0].image[i] > 0.05F) views[0].image[i] = 30 - views[0].image[i];
    }
    Consistency other(kGrid, knots(), views, strength(100, 4));
    mu = pseudo_random(kCount, 9, 0.001F, 0.04F);
    CHECK_THROWS(x2ct::Error, other.pull(mu.data()));
}

// At HU between the knots, and at the window's ends: mu of water rises from -1000 HU.
void knots_are_the_map_to_attenuation() {
    const x2ct::Intensity maps[] = {{{-1000, 1500}, {-1, 1}},
                                    {{-1024, -1000, -150, 600, 1500}, {-1, -0.99, -0.45, 0.6, 1}}};
    for (const x2ct::Intensity& map : maps) {
        const auto [x, mu] = x2ct::attenuation_knots(map);
        CHECK(mu.front() == 0);
        for (std::size_t k = 0; k + 1 < x.size(); ++k) {
            CHECK(x[k] < x[k + 1] && mu[k] < mu[k + 1]);
            const auto middle = static_cast<float>((x[k] + x[k + 1]) / 2);
            float hu = 0;
            map.to_hu(&middle, &hu, 1);
            CHECK(std::abs((mu[k] + mu[k + 1]) / 2 - x2ct::kWaterPerMm * (1 + hu / 1000.0)) < 1e-7);
        }
        CHECK(std::abs(mu.back() - x2ct::kWaterPerMm * 2.5) < 1e-12);
    }
}

void wrong_use_is_refused() {
    const auto views = aligned_pair(plain_truth());
    CHECK_THROWS(x2ct::InputError, Consistency(kGrid, knots(), {}, strength(1, 1)));
    CHECK_THROWS(x2ct::InputError, Consistency(kGrid, knots(), views, strength(-1, 1)));
    CHECK_THROWS(x2ct::InputError, Consistency(kGrid, knots(), views, strength(std::nan(""), 1)));
    CHECK_THROWS(x2ct::InputError, Consistency(kGrid, {{-1, 1}, {-0.1, 0.2}}, views, strength(1, 1)));
    auto wrong = views;
    wrong[0].image.pop_back();
    CHECK_THROWS(x2ct::InputError, Consistency(kGrid, knots(), wrong, strength(1, 1)));
    wrong = views;
    wrong[1].image[3] = std::nanf("");
    CHECK_THROWS(x2ct::InputError, Consistency(kGrid, knots(), wrong, strength(1, 1)));
}

}  // namespace

TESTS(the_closed_form_is_cg_is_dense_least_squares, cg_is_dense_least_squares_for_a_cone,
      one_view_has_its_closed_form_too, transposes_match, aligned_sums_are_the_projector, a_strong_pull_reprojects,
      no_pull_changes_no_bit, the_clamp_gives_the_constrained_minimum, only_what_the_pull_moves_changes,
      runs_and_threads_change_no_bit, a_step_starts_where_the_last_one_ended, fine_pixels_are_averaged_to_voxels,
      rays_count_that_miss_what_is_outside, an_uncalibrated_xray_is_fitted, knots_are_the_map_to_attenuation,
      wrong_use_is_refused)
