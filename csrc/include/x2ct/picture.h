// X-ray pictures on the encoder's grid; x2ct/conditioning.py and x2ct/radiograph.py use what is here.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace x2ct {

/// Brings an image [rows, columns] onto another grid with the same centre; outside the image is 0.
///
/// Each axis is a triangle filter as wide as the coarser of the two pixels: linear interpolation where the target is
/// finer, antialiasing where it is coarser. Spacings are (row, column), in any one unit. Throws InputError for an empty
/// shape or a spacing that is not above 0.
std::vector<float> resample(const float* image, std::array<std::int64_t, 2> shape, std::array<double, 2> spacing,
                            std::array<std::int64_t, 2> target_shape, std::array<double, 2> target_spacing);

/// How many mm a pixel's row and column pitch spans where patient mm are (0, 0, 0), seen through a 3x4 matrix. Throws
/// InputError for a view that doesn't see it.
std::array<double, 2> pixel_at_isocentre(const std::array<double, 12>& matrix);

/// A picture and the matrix that takes patient mm to its pixels.
struct Picture {
    std::vector<float> pixels;
    std::array<double, 12> matrix{};
};

/// Resamples a picture about its middle so that its pixel measures `spacing_mm` at the isocentre, and moves its matrix
/// with it. A picture that is as wanted stays as it is.
Picture onto_grid(const float* image, std::array<std::int64_t, 2> shape, const std::array<double, 12>& matrix,
                  std::array<std::int64_t, 2> target_shape, std::array<double, 2> spacing_mm);

}  // namespace x2ct
