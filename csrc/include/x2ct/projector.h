// X-ray projection of a voxel volume through a 3x4 projection matrix, and its exactly matched adjoint.
//
// One implementation serves DRRs, training, lifting checks and consistency, so that they can't disagree on geometry.
#pragma once

#include <array>
#include <cstdint>

namespace x2ct {

// A volume's shape and place: [nx, ny, nz], z fastest, and the row-major 4x4 affine that takes a voxel index to patient
// mm. The affine may rotate, scale, mirror and shear, as long as it can be inverted.
struct VolumeGrid {
    std::array<std::int64_t, 3> shape{};
    std::array<double, 16> index_to_mm{};
};

// A view: the row-major 3x4 matrix P with (u w, v w, w) = P (x, y, z, 1) in patient mm, u the column, v the row, an
// integer a pixel's centre; and the detector's size. Parallel beam: the third row is (0, 0, 0, w). Cone beam: w > 0 in
// front of the source, and what lies behind the source is not seen.
struct DetectorView {
    std::array<double, 12> matrix{};
    std::int64_t rows = 0;
    std::int64_t cols = 0;
};

// Line integrals of `volume` (per mm) along the ray of every pixel, into `image` [rows, cols] (dimensionless).
//
// Joseph's method (P. M. Joseph, IEEE Trans. Med. Imaging 1(3), 1982), in voxel-index space: a ray is sampled where it
// crosses the slices of the axis it follows most closely, bilinearly within the slice. Outside of the volume is air, 0.
// `threads` = 0 takes every processor; the result is the same to the bit for any number. Throws InputError for a
// matrix from which no rays can be had, a singular affine or an empty shape.
void project(const float* volume, const VolumeGrid& grid, const DetectorView& view, float* image, int threads = 0);

// The transpose of `project`, with the same weights: spreads `image` [rows, cols] into `volume` [nx, ny, nz], which is
// overwritten, or added to when `accumulate`. Deterministic for any number of threads: each slice has one writer.
void backproject(const float* image, const VolumeGrid& grid, const DetectorView& view, float* volume,
                 bool accumulate = false, int threads = 0);

}  // namespace x2ct
