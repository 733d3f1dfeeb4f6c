// What a device must make of rays and of consistency, beside the CPU: for the GPU itself (gpu.cpp), and for the CUDA
// device over an emulated runtime (test_cuda.cpp).
#pragma once

#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "core/ray_operator.h"
#include "device_laws.h"
#include "x2ct/consistency.h"

namespace laws {

using x2ct::DetectorView;
using x2ct::RayOperator;
using x2ct::VolumeGrid;

/// The sampler's volume in test_cuda, of voxels of 20 x 25 x 30 mm.
inline VolumeGrid ray_grid() { return {{8, 12, 20}, {20, 0, 0, -70, 0, 25, 0, -137.5, 0, 0, 30, -285, 0, 0, 0, 1}}; }

/// Voxels of 2 x 3 x 4 mm, turned by 30 degrees about z, somewhere off the origin.
inline VolumeGrid oblique_grid() {
    return {{7, 6, 5}, {1.7320508, -1.5, 0, -4, 1, 2.5980762, 0, -9, 0, 0, 4, -8, 0, 0, 0, 1}};
}

/// A parallel view of ray_grid() along x, y or z: a pixel a line of voxels, and two more on each side.
inline DetectorView along(int axis) {
    if (axis == 0) return {{0, -1.0 / 25, 0, 7.5, 0, 0, -1.0 / 30, 11.5, 0, 0, 0, 1}, 24, 16};
    if (axis == 1) return {{-1.0 / 20, 0, 0, 5.5, 0, 0, -1.0 / 30, 11.5, 0, 0, 0, 1}, 24, 12};
    return {{-1.0 / 20, 0, 0, 5.5, 0, 1.0 / 25, 0, 7.5, 0, 0, 0, 1}, 16, 12};
}

/// A cone from `distance` mm at an angle about z, on square pixels of `pitch` mm at the origin.
inline DetectorView cone(double angle_deg, double distance, double pitch, std::int64_t size) {
    const double s = std::sin(angle_deg * 3.14159265358979 / 180), c = std::cos(angle_deg * 3.14159265358979 / 180);
    const double middle = 0.5 * static_cast<double>(size - 1);
    std::array<double, 12> m{-c / pitch, s / pitch, 0, 0, 0, 0, -1 / pitch, 0, -s / distance, -c / distance, 0, 1};
    for (int k = 0; k < 4; ++k) m[k] += middle * m[8 + k], m[4 + k] += middle * m[8 + k];
    return {m, size, size};
}

struct Scene {
    const char* name;
    VolumeGrid grid;
    DetectorView view;
};

/// Rays along one axis and along two, along the grid and across it, past it, and from a source within it.
inline std::vector<Scene> scenes() {
    return {{"along y", ray_grid(), along(1)},
            {"along z", ray_grid(), along(2)},
            {"cone", ray_grid(), cone(25, 1500, 25, 24)},
            {"cone along two axes", ray_grid(), cone(45, 700, 15, 40)},
            {"coarse pixels", ray_grid(), cone(10, 900, 90, 9)},
            {"fine pixels", ray_grid(), cone(100, 2000, 6, 90)},
            {"turned grid", oblique_grid(), cone(70, 60, 1.5, 30)},
            {"source in the grid", ray_grid(), cone(30, 40, 20, 24)}};
}

inline double dot(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
    return sum;
}

/// The largest difference over the largest value.
inline double difference(const std::vector<float>& found, const std::vector<float>& wanted) {
    double most = 0, largest = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        const double one = std::abs(static_cast<double>(found[i]) - wanted[i]);
        most = one <= most ? most : one;  // NaN stays
        largest = std::max(largest, std::abs(static_cast<double>(wanted[i])));
    }
    return most / largest;
}

inline std::vector<float> forward(const RayOperator& rays, const std::shared_ptr<Device>& device,
                                  const std::vector<float>& volume) {
    const x2ct::Buffer from = on(device, volume), to(device, rays.rays());
    rays.forward(from.data(), to.data());
    return values_of(*device, to);
}

inline std::vector<float> backward(const RayOperator& rays, const std::shared_ptr<Device>& device,
                                   const std::vector<float>& values, std::size_t voxels) {
    const x2ct::Buffer from = on(device, values), to(device, voxels);
    rays.backward(from.data(), to.data());
    return values_of(*device, to);
}

inline std::size_t voxels_of(const VolumeGrid& grid) {
    return static_cast<std::size_t>(grid.shape[0] * grid.shape[1] * grid.shape[2]);
}

inline void line_integrals_and_their_transpose_are_the_cpus() {
    const auto device = gpu(), host = cpu();
    for (const auto& [name, grid, view] : scenes()) {
        const auto there = x2ct::joseph_rays(grid, {view}, 1, device), here = x2ct::joseph_rays(grid, {view}, 1, host);
        const std::size_t voxels = voxels_of(grid);
        const auto volume = numbers(voxels, 1), image = numbers(here->rays(), 2);
        const auto seen = forward(*there, device, volume), spread = backward(*there, device, image, voxels);
        const bool alike = same(seen, forward(*here, host, volume));
        const double apart = difference(spread, backward(*here, host, image, voxels));
        const double left = dot(seen, image), right = dot(volume, spread);
        const double apart_transposed = std::abs(left - right) / std::sqrt(dot(seen, seen) * dot(image, image));
        if (!alike || !(apart < 2e-6) || !(apart_transposed < 1e-6)) {
            std::fprintf(stderr, "%s: forward %s, transpose differs by %g, adjoint by %g\n", name,
                         alike ? "the same" : "another", apart, apart_transposed);
        }
        CHECK(alike);                    // the same function of the same rays
        CHECK(apart < 2e-6);             // the same weights, added up in another order
        CHECK(apart_transposed < 1e-6);  // of the device's own pair
        CHECK(dot(seen, seen) > 0 && dot(spread, spread) > 0);
    }
}

inline void several_views_add_up() {
    const auto device = gpu(), host = cpu();
    const std::vector<DetectorView> views = {along(0), cone(45, 700, 15, 40), along(1)};
    auto there = x2ct::joseph_rays(ray_grid(), views, 1, device), here = x2ct::joseph_rays(ray_grid(), views, 1, host);
    auto counts = here->counts();
    for (std::size_t ray = 0; ray < counts.size(); ray += 3) counts[ray] = 0;
    there->count(counts), here->count(counts);
    const std::size_t voxels = voxels_of(ray_grid());
    const auto volume = numbers(voxels, 3);
    auto image = numbers(here->rays(), 4);
    for (std::size_t ray = 0; ray < counts.size(); ++ray) image[ray] *= counts[ray];
    const auto seen = forward(*there, device, volume);
    CHECK(same(seen, forward(*here, host, volume)));
    for (std::size_t ray = 0; ray < counts.size(); ray += 3) CHECK(seen[ray] == 0);
    CHECK(difference(backward(*there, device, image, voxels), backward(*here, host, image, voxels)) < 2e-6);
}

inline void aligned_rays_are_the_cpus() {
    const auto device = gpu(), host = cpu();
    const std::vector<std::vector<int>> pairs = {{0}, {1}, {2}, {0, 1}, {1, 0}, {0, 2}, {1, 2}, {2, 1}};
    for (const auto& axes : pairs) {
        std::vector<DetectorView> views;
        views.reserve(axes.size());
        for (const int axis : axes) views.push_back(along(axis));
        const auto there = x2ct::aligned_rays(ray_grid(), views, device);
        const auto here = x2ct::aligned_rays(ray_grid(), views, host);
        CHECK(there != nullptr && here != nullptr);
        if (!there || !here) continue;
        auto counts = here->counts();
        for (std::size_t ray = 0; ray < counts.size(); ray += 5) counts[ray] = 0;
        there->count(counts), here->count(counts);
        const std::size_t voxels = voxels_of(ray_grid());
        const auto volume = numbers(voxels, 5);
        auto image = numbers(here->rays(), 6);
        for (std::size_t ray = 0; ray < counts.size(); ++ray) image[ray] *= counts[ray];
        CHECK(same(forward(*there, device, volume), forward(*here, host, volume)));
        CHECK(same(backward(*there, device, image, voxels), backward(*here, host, image, voxels)));
        std::vector<std::vector<float>> steps;
        for (const auto& [rays, one] : {std::pair(there.get(), device), std::pair(here.get(), host)}) {
            const x2ct::Buffer residual = on(one, image), step(one, image.size());
            rays->solve(700, residual.data(), step.data(), nullptr);
            steps.push_back(values_of(*one, step));
        }
        CHECK(same(steps[0], steps[1]));
        CHECK(dot(steps[1], steps[1]) > 0);
    }
}

inline x2ct::AttenuationKnots knots() { return {{-1, -0.45, 0.6, 1}, {0, 0.017, 0.032, 0.05}}; }

/// A body in the grid: `inside` an ellipsoid and `outside` it, each with a tenth of noise.
inline std::vector<float> body(float inside, float outside, unsigned seed) {
    const auto [nx, ny, nz] = ray_grid().shape;
    std::vector<float> values = numbers(voxels_of(ray_grid()), seed);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const auto at = static_cast<std::int64_t>(i);
        const auto part = [](std::int64_t index, std::int64_t size) {
            return 2 * (static_cast<double>(index) + 0.5) / static_cast<double>(size) - 1;
        };
        const double x = part(at / (ny * nz), nx), y = part(at / nz % ny, ny), z = part(at % nz, nz);
        const float value = x * x + y * y + z * z < 1 ? inside : outside;
        values[i] = value + 0.1F * value * std::tanh(values[i]);
    }
    return values;
}

inline std::vector<x2ct::MeasuredView> measured(const std::vector<DetectorView>& views, bool calibrated = true) {
    const std::vector<float> truth = body(0.02F, 0, 7);
    std::vector<x2ct::MeasuredView> result;
    for (const DetectorView& view : views) {
        x2ct::MeasuredView one{
            "view", view, std::vector<float>(static_cast<std::size_t>(view.rows * view.cols)), {}, true};
        x2ct::project(truth.data(), ray_grid(), view, one.image.data(), 1);
        one.measured.assign(one.image.size(), 1);
        one.calibrated = calibrated;
        if (!calibrated) {
            for (float& value : one.image) value = 2.5F * value + 0.02F;
        }
        result.push_back(std::move(one));
    }
    return result;
}

inline std::shared_ptr<x2ct::Consistency> consistency(const std::vector<x2ct::MeasuredView>& views,
                                                      bool closed = true) {
    return std::make_shared<x2ct::Consistency>(
        ray_grid(), knots(), views,
        x2ct::ConsistencyOptions{
            .gamma = 3, .evaluations = {}, .rounds = 0, .cg_steps = 3, .closed = closed, .threads = 1});
}

/// Three pulls in a row, the first of which forgets what was before.
inline std::vector<float> pulls(x2ct::Consistency& consistency, const std::shared_ptr<Device>& device) {
    CHECK(consistency.works_on(device));
    std::vector<float> all;
    for (int row = 0; row < 3; ++row) {
        const auto denoised = body(-0.3F, -1, 8 + static_cast<unsigned>(row));
        const x2ct::Buffer there = on(device, denoised);
        consistency.apply(row, 3, 1.0, there.data());
        const auto pulled = values_of(*device, there);
        CHECK(!same(pulled, denoised));
        all.insert(all.end(), pulled.begin(), pulled.end());
    }
    return all;
}

inline void a_pull_is_the_cpus() {
    const auto device = gpu(), host = cpu();
    const std::vector<DetectorView> pair = {along(1), along(0)};
    std::vector<DetectorView> three = pair;
    three.push_back(cone(25, 1500, 25, 24));
    for (const bool calibrated : {true, false}) {
        for (const bool closed : {true, false}) {
            const auto views = measured(closed ? pair : three, calibrated);
            const auto there = consistency(views), here = consistency(views);
            CHECK(there->is_closed_form() == closed);
            const auto found = pulls(*there, device), wanted = pulls(*here, host);
            CHECK(closed ? same(found, wanted) : difference(found, wanted) < 1e-5);
            for (std::size_t k = 0; k < views.size(); ++k) {
                const auto &one = there->views()[k], &other = here->views()[k];
                CHECK_CLOSE(one.rms_before, other.rms_before, 1e-5);
                CHECK_CLOSE(one.rms_after, other.rms_after, 1e-5);
                CHECK_CLOSE(one.scale, other.scale, 1e-5);
                CHECK_CLOSE(one.offset, other.offset, 1e-4);
                CHECK(one.rms_after < one.rms_before);
            }
            CHECK(same(pulls(*there, host), wanted));   // and it can be moved
            CHECK(same(pulls(*there, device), found));  // forth and back
        }
    }
}

inline void a_run_that_is_pulled_is_the_cpus() {
    Rig here(cpu()), there(gpu());
    x2ct::RunOptions options;
    const auto views = measured({along(1), along(0)});
    for (const char* solver : {"unipc-2", "heun"}) {
        std::vector<std::vector<float>> results;
        for (Rig* rig : {&here, &there}) {
            options.correction = consistency(views);
            for (int turn = 0; turn < 2; ++turn) results.push_back(rig->run(table_of(solver), options));
        }
        CHECK(same(results[0], results[1]) && same(results[0], results[2]) && same(results[0], results[3]));
        CHECK(!same(results[0], here.run(table_of(solver))));
    }
}

}  // namespace laws

#define RAY_LAWS                                                                       \
    laws::line_integrals_and_their_transpose_are_the_cpus, laws::several_views_add_up, \
        laws::aligned_rays_are_the_cpus, laws::a_pull_is_the_cpus, laws::a_run_that_is_pulled_is_the_cpus
