#include "x2ct/device_check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "core/ray_operator.h"
#include "kernels/ray_kernel.h"
#include "x2ct/consistency.h"

namespace x2ct {
namespace {

using Values = std::vector<float>;
using Place = std::shared_ptr<Device>;
using Work = std::function<Values(const Place&)>;

constexpr Index kGrid = {8, 12, 20};
constexpr std::int64_t kVoxels = kGrid[0] * kGrid[1] * kGrid[2];

Values numbers(std::int64_t count, std::uint32_t draw) {
    Values values(static_cast<std::size_t>(count));
    normal(values.data(), 0, count, {20261130, draw, 0});
    return values;
}

Buffer on(const Place& device, const Values& values) {
    Buffer buffer(device, values.size());
    device->upload(buffer.data(), values.data(), values.size());
    return buffer;
}

void append(Values& all, const Place& device, const Buffer& buffer) {
    const std::size_t before = all.size();
    all.resize(before + buffer.count());
    device->download(all.data() + before, buffer.data(), buffer.count());
}

Values values_of(const Place& device, const Buffer& buffer) {
    Values all;
    append(all, device, buffer);
    return all;
}

Values copies(const Place& device) { return values_of(device, on(device, numbers(1'500'001, 0))); }

Values noise(const Place& device) {
    Values all;
    for (const std::int64_t count : {1, 4, 5, 65537}) {
        const Buffer to(device, static_cast<std::size_t>(count));
        RowKernel kernel;
        kernel.count = count;
        kernel.noise = {0x123456789abcdefULL, 7, 3};
        kernel.new_y = to.data();
        kernel.to_y.noise = 1;
        device->run(kernel);
        append(all, device, to);
    }
    return all;
}

Values row(const Place& device) {
    constexpr std::int64_t kCount = 5003;
    std::vector<Buffer> registers;
    registers.reserve(7);
    for (std::uint32_t k = 0; k < 7; ++k) registers.push_back(on(device, numbers(kCount, k)));
    RowKernel kernel;
    kernel.count = kCount;
    kernel.x = registers[0].data(), kernel.y = registers[1].data(), kernel.denoised = registers[2].data();
    for (int k = 1; k < 4; ++k) kernel.h[k] = registers[2 + k].data();
    kernel.a = 0.7F, kernel.b = -0.3F;
    kernel.to_x = {0.9F, 0.1F, {0.2F, -0.4F, 0.3F, 0.05F}, 0.6F};
    kernel.to_y = {-0.5F, 1.1F, {0.7F, 0.1F, -0.2F, 0.4F}, -0.3F};
    kernel.noise = {5, 1, 2};
    kernel.new_x = registers[0].data(), kernel.new_y = registers[1].data(), kernel.new_h = registers[6].data();
    device->run(kernel);
    Values all;
    for (const int k : {0, 1, 6}) append(all, device, registers[k]);
    return all;
}

Values boxes(const Place& device) {
    Values all;
    const Buffer from = on(device, numbers(2 * kVoxels, 1));
    for (const Index& extent : {Index{4, 5, 8}, Index{3, 7, 5}}) {
        const Buffer to = on(device, Values(2 * 6 * 9 * 12, 0.0F));
        device->copy({from.data(), kGrid, {2, 3, 4}, to.data(), {6, 9, 12}, {1, 2, 4}, extent, 2});
        append(all, device, to);
    }
    return all;
}

Values coordinates(const Place& device) {
    const Buffer to(device, 3 * kVoxels);
    device->run(RayKernel{kernels::Coordinates{
        {kGrid[0], kGrid[1], kGrid[2]}, {4, 0, 8}, {63.5, 63.5, 79.5}, {2.5, 2.5, 1.3}, 100, to.data()}});
    return values_of(device, to);
}

Values hounsfield(const Place& device) {
    constexpr std::array<double, 8> kKnots = {-1, -0.45, 0.6, 1, -1000, -150, 600, 1500};
    Values held(2 * kKnots.size());
    std::memcpy(held.data(), kKnots.data(), sizeof kKnots);
    Values values = numbers(4099, 2);
    values[17] = std::numeric_limits<float>::infinity();
    const Buffer knots = on(device, held), volume = on(device, values);
    const auto* const x = reinterpret_cast<const double*>(knots.data());
    const auto count = static_cast<std::int64_t>(values.size());
    device->run(RayKernel{kernels::ToHu{{{count}, x, x + 4, 4, volume.data(), nullptr, volume.data()}}});
    return values_of(device, volume);
}

// ------------------------------------------------------------------------------------------------ rays

VolumeGrid grid() { return {kGrid, {20, 0, 0, -70, 0, 25, 0, -137.5, 0, 0, 30, -285, 0, 0, 0, 1}}; }

// A parallel view along y or x: a pixel a line of voxels, and two more on each side.
DetectorView along(int axis) {
    if (axis == 0) return {{0, -1.0 / 25, 0, 7.5, 0, 0, -1.0 / 30, 11.5, 0, 0, 0, 1}, 24, 16};
    return {{-1.0 / 20, 0, 0, 5.5, 0, 0, -1.0 / 30, 11.5, 0, 0, 0, 1}, 24, 12};
}

// A cone from 1500 mm, 25 degrees about z, on square pixels of 25 mm at the origin.
DetectorView cone() {
    constexpr double kDistance = 1500, kPitch = 25, kSine = 0.42261826, kCosine = 0.90630779, kMiddle = 11.5;
    std::array<double, 12> m{-kCosine / kPitch,  kSine / kPitch,       0, 0, 0, 0, -1 / kPitch, 0,
                             -kSine / kDistance, -kCosine / kDistance, 0, 1};
    for (std::size_t k = 0; k < 4; ++k) m[k] += kMiddle * m[8 + k], m[4 + k] += kMiddle * m[8 + k];
    return {m, 24, 24};
}

Values aligned(const Place& device) {
    const auto rays = aligned_rays(grid(), {along(1), along(0)}, device);
    const Buffer volume = on(device, numbers(kVoxels, 3)), image(device, rays->rays()), step(device, rays->rays());
    rays->forward(volume.data(), image.data());
    rays->solve(700, image.data(), step.data(), nullptr);
    Values all;
    append(all, device, image);
    append(all, device, step);
    rays->backward(step.data(), volume.data());
    append(all, device, volume);
    return all;
}

Values integrals(const Place& device) {
    const auto rays = joseph_rays(grid(), {cone(), along(0)}, 1, device, 1);
    const Buffer volume = on(device, numbers(kVoxels, 4)), image(device, rays->rays());
    rays->forward(volume.data(), image.data());
    return values_of(device, image);
}

Values transposed(const Place& device) {
    const auto rays = joseph_rays(grid(), {cone(), along(0)}, 1, device, 1);
    const Buffer image = on(device, numbers(static_cast<std::int64_t>(rays->rays()), 5)), volume(device, kVoxels);
    rays->backward(image.data(), volume.data());
    return values_of(device, volume);
}

// Two steps in a row, on what is an ellipsoid in the X-rays and another in the volume.
Values consistent(const Place& device, bool closed) {
    const auto body = [](float inside, float outside, double size) {
        Values values = numbers(kVoxels, 6);
        for (std::int64_t i = 0; i < kVoxels; ++i) {
            const auto part = [](std::int64_t at, std::int64_t count) {
                return 2 * (static_cast<double>(at) + 0.5) / static_cast<double>(count) - 1;
            };
            const double x = part(i / (kGrid[1] * kGrid[2]), kGrid[0]), y = part(i / kGrid[2] % kGrid[1], kGrid[1]);
            const double z = part(i % kGrid[2], kGrid[2]);
            float& value = values[static_cast<std::size_t>(i)];
            const float mean = x * x + y * y + z * z < size ? inside : outside;
            value = mean + 0.1F * mean * std::clamp(value, -1.0F, 1.0F);
        }
        return values;
    };
    const Values truth = body(0.02F, 0, 1);
    std::vector<MeasuredView> views;
    for (const DetectorView& view : closed ? std::vector{along(1), along(0)} : std::vector{along(1), cone()}) {
        MeasuredView one{"view", view, Values(static_cast<std::size_t>(view.rows * view.cols)), {}, true};
        project(truth.data(), grid(), view, one.image.data(), 1);
        one.measured.assign(one.image.size(), 1);
        views.push_back(std::move(one));
    }
    ConsistencyOptions options;
    options.gamma = 3, options.closed = closed, options.threads = 1;
    Consistency consistency(grid(), {{-1, -0.45, 0.6, 1}, {0, 0.017, 0.032, 0.05}}, views, options);
    consistency.works_on(device);
    Values all;
    for (int step = 0; step < 2; ++step) {
        const Buffer denoised = on(device, body(-0.3F, -1, 0.7 + 0.1 * step));
        consistency.apply(step, 2, 1.0, denoised.data());
        append(all, device, denoised);
    }
    return all;
}

double difference(const Values& found, const Values& wanted) {
    if (std::memcmp(found.data(), wanted.data(), wanted.size() * sizeof(float)) == 0) return 0;
    double most = std::numeric_limits<double>::min(), largest = most;  // other bits are never no difference
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        if (!std::isfinite(wanted[i]) && found[i] == wanted[i]) continue;
        const double one = std::abs(static_cast<double>(found[i]) - wanted[i]);
        most = one <= most ? most : one;  // NaN stays
        largest = std::max(largest, std::abs(static_cast<double>(wanted[i])));
    }
    return most / largest;
}

}  // namespace

std::vector<DeviceCheck> check_device(const std::shared_ptr<Device>& device) {
    struct Kind {
        const char* name;
        double bound;
        Work work;
    };
    const std::vector<Kind> kinds = {
        {"copies", 0, copies},
        {"noise", 0, noise},
        {"sampling row", 0, row},
        {"boxes", 0, boxes},
        {"coordinates", 0, coordinates},
        {"HU", 0, hounsfield},
        {"rays along grid axes", 0, aligned},
        {"line integrals", 0, integrals},
        {"their transpose", 2e-6, transposed},
        {"consistency, closed form", 0, [](const Place& place) { return consistent(place, true); }},
        {"consistency, CG", 1e-5, [](const Place& place) { return consistent(place, false); }},
    };
    const Place host = cpu_device(1);
    std::vector<DeviceCheck> checks;
    checks.reserve(kinds.size());
    for (const auto& [name, bound, work] : kinds) {
        checks.push_back({name, difference(work(device), work(host)), bound});
    }
    return checks;
}

}  // namespace x2ct
