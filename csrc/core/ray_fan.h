// From a view to its pixels' rays in voxel-index space.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/joseph.h"
#include "x2ct/projector.h"

namespace x2ct {

/// Derives every pixel's ray from P composed with the affine.
class RayFan {
  public:
    using Vec3 = std::array<double, 3>;
    using Mat3 = std::array<Vec3, 3>;

    /// Throws InputError for a matrix from which no rays can be had, a singular affine or an empty shape.
    RayFan(const VolumeGrid& grid, const DetectorView& view);

    /// The ray of column u and row v.
    kernels::Ray ray(double u, double v) const;

    /// Whether neighbouring rows, rather than columns, read neighbouring memory.
    bool rows_are_contiguous() const;

    /// Of every pixel, [rows, cols].
    std::vector<kernels::Ray> table() const;

  private:
    void of_cone(const Vec3& t, const Mat3& m);
    void of_parallel(const Vec3& t, Mat3 m, double w);

    std::array<std::int64_t, 3> shape_;
    std::int64_t rows_, cols_;
    Mat3 to_mm_{};
    Mat3 inverse_{};
    Vec3 origin_{};
    Vec3 direction_{};
    std::array<double, 2> offset_{};
    double scale_ = 1.0;
    bool cone_ = false;
};

}  // namespace x2ct
