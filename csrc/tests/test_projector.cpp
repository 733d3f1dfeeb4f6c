// The projector: lengths in mm, air outside, matched adjoint, no dependence on threads, refusal of what has no rays.
#include <cstdint>
#include <vector>

#include "check.h"
#include "x2ct/error.h"
#include "x2ct/projector.h"

namespace {

using x2ct::DetectorView;
using x2ct::VolumeGrid;

// Voxels of 2 x 3 x 4 mm, turned by 30 degrees about z, somewhere off the origin.
VolumeGrid oblique_grid() {
    return {{7, 6, 5}, {1.7320508, -1.5, 0, -4, 1, 2.5980762, 0, -9, 0, 0, 4, -8, 0, 0, 0, 1}};
}

DetectorView cone() {
    // Source 100 mm in front, 1.5 mm pixels at a magnification of 1.2, slightly turned so that no axis is special.
    return {{-0.79, 0.05 - 0.145, 0.01, 14.5, 0.02, -0.145, -0.8, 14.5, 0.001, -0.01, 0.0005, 1}, 30, 30};
}

DetectorView along_y() { return {{-1, 0, 0, 4, 0, 0, -1, 4, 0, 0, 0, 1}, 9, 9}; }

std::vector<float> pseudo_random(std::size_t count, std::uint32_t seed) {
    std::vector<float> values(count);
    for (float& value : values) {
        seed = seed * 1664525U + 1013904223U;
        value = static_cast<float>(seed >> 8U) / 16777216.0F - 0.4F;
    }
    return values;
}

void a_box_is_as_long_as_it_is() {
    const VolumeGrid grid{{5, 8, 5}, {1, 0, 0, -2, 0, 2.5, 0, -8.75, 0, 0, 1, -2, 0, 0, 0, 1}};
    const std::vector<float> box(5 * 8 * 5, 0.5F);
    std::vector<float> image(81, -1.0F);
    x2ct::project(box.data(), grid, along_y(), image.data(), 1);
    CHECK_CLOSE(image[4 * 9 + 4], 0.5 * 8 * 2.5, 1e-5);
    CHECK_CLOSE(image[0], 0.0, 0.0);  // a ray that misses sees air, whatever was in the memory
}

void the_adjoint_is_matched() {
    const VolumeGrid grid = oblique_grid();
    const DetectorView view = cone();
    const std::vector<float> a = pseudo_random(7 * 6 * 5, 1);
    const std::vector<float> b = pseudo_random(30 * 30, 2);
    std::vector<float> seen(b.size());
    std::vector<float> spread(a.size());
    x2ct::project(a.data(), grid, view, seen.data(), 1);
    x2ct::backproject(b.data(), grid, view, spread.data(), false, 1);
    double left = 0.0;
    double right = 0.0;
    for (std::size_t i = 0; i < b.size(); ++i) left += static_cast<double>(seen[i]) * b[i];
    for (std::size_t i = 0; i < a.size(); ++i) right += static_cast<double>(a[i]) * spread[i];
    CHECK(std::abs(left) > 1.0);
    CHECK_CLOSE(left / right, 1.0, 1e-5);
}

void threads_change_no_bit() {
    const VolumeGrid grid = oblique_grid();
    const std::vector<float> a = pseudo_random(7 * 6 * 5, 3);
    const std::vector<float> b = pseudo_random(30 * 30, 4);
    std::vector<float> seen[2] = {std::vector<float>(b.size()), std::vector<float>(b.size())};
    std::vector<float> spread[2] = {std::vector<float>(a.size()), std::vector<float>(a.size())};
    for (int i = 0; i < 2; ++i) {
        x2ct::project(a.data(), grid, cone(), seen[i].data(), 1 + 3 * i);
        x2ct::backproject(b.data(), grid, cone(), spread[i].data(), false, 1 + 3 * i);
    }
    CHECK(seen[0] == seen[1]);
    CHECK(spread[0] == spread[1]);
}

void adding_keeps_what_was_there() {
    const VolumeGrid grid = oblique_grid();
    const std::vector<float> b = pseudo_random(30 * 30, 5);
    std::vector<float> once(7 * 6 * 5, 9.0F);
    x2ct::backproject(b.data(), grid, cone(), once.data(), false, 1);
    std::vector<float> twice = once;
    x2ct::backproject(b.data(), grid, cone(), twice.data(), true, 1);
    for (std::size_t i = 0; i < once.size(); ++i) CHECK_CLOSE(twice[i], 2.0 * once[i], 1e-4);
}

void behind_the_source_is_not_seen() {
    // The source lies at y = -100, beyond the volume, and looks away from it.
    const DetectorView away{{-1, -0.04, 0, -4, 0, -0.04, -1, -4, 0, -0.01, 0, -1}, 9, 9};
    const std::vector<float> a(7 * 6 * 5, 1.0F);
    std::vector<float> image(81, -1.0F);
    x2ct::project(a.data(), oblique_grid(), away, image.data(), 1);
    for (const float value : image) CHECK_CLOSE(value, 0.0, 0.0);
}

void what_has_no_rays_is_refused() {
    const std::vector<float> a(7 * 6 * 5, 1.0F);
    std::vector<float> image(81);
    DetectorView flat = along_y();
    flat.matrix[6] = 0;  // the second row sees nothing
    CHECK_THROWS(x2ct::InputError, (x2ct::project(a.data(), oblique_grid(), flat, image.data(), 1), 0));
    VolumeGrid squashed = oblique_grid();
    squashed.index_to_mm[4] = squashed.index_to_mm[5] =
        0;  // flat along the rays, which the view alone would not notice
    CHECK_THROWS(x2ct::InputError, (x2ct::project(a.data(), squashed, along_y(), image.data(), 1), 0));
    DetectorView nowhere = along_y();
    nowhere.matrix[3] = std::nan("");
    CHECK_THROWS(x2ct::InputError, (x2ct::project(a.data(), oblique_grid(), nowhere, image.data(), 1), 0));
    CHECK_THROWS(x2ct::InputError, (x2ct::project(a.data(), oblique_grid(), along_y(), image.data(), -1), 0));
}

}  // namespace

TESTS(a_box_is_as_long_as_it_is, the_adjoint_is_matched, threads_change_no_bit, adding_keeps_what_was_there,
      behind_the_source_is_not_seen, what_has_no_rays_is_refused)
