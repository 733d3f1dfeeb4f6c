// X-ray pictures on the encoder's grid; x2ct/engine/conditioning.py and x2ct/io/xray/radiograph.py use what is here.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "x2ct/bundle.h"
#include "x2ct/projector.h"

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

// X-rays on their way to the networks.

/// Line integrals that a radiograph can have: noise around air, and more than metal across a whole body.
inline constexpr float kLeastLineIntegral = -1, kMostLineIntegral = 100;

/// One X-ray: line integrals of attenuation (dimensionless) [rows, columns], row 0 at the head, column 0 at the
/// patient's right, in a lateral at the front. They are copied.
struct XRay {
    int slot = 0;  ///< which of the bundle's views it is: 0 frontal, 1 lateral
    const float* line_integrals = nullptr;
    std::int64_t rows = 0, columns = 0;
    /// Row-major 3x4, patient mm to its pixels; without one the picture is the bundle's own view, pixel for pixel.
    std::optional<std::array<double, 12>> matrix;
    /// Not calibrated: known up to a scale and an offset only, which consistency fits.
    bool calibrated = true;
    /// [rows, columns], the share of each pixel that was measured: 0 in padding and behind shutters; null: all of it.
    const float* measured = nullptr;
    std::string name = {};  ///< for reports and errors; empty: the name of the bundle's view
};

/// What encoder and lift read.
struct Conditions {
    std::vector<float> views;     ///< [1, V, 1, H, W] line integrals, 0 in a slot without an X-ray
    std::vector<float> valid;     ///< [1, V], 1 where there is an X-ray
    std::vector<float> matrices;  ///< [1, V, 3, 4], patient mm to the pixels of `views`
};

/// Throws InputError unless there is at least one X-ray, each with a slot of its own, a geometry and plausible values.
void check(const Bundle& bundle, std::span<const XRay> xrays);

/// Brings X-rays that were checked onto the encoder's pictures.
Conditions conditions_of(const Bundle& bundle, std::span<const XRay> xrays);

/// The same of the patient's mirror image, x to -x. Where a view's columns follow x, the picture is mirrored, as it
/// would be in an X-ray of that image; else it stays, and the matrix alone says so.
Conditions mirrored(Conditions conditions, std::int64_t columns);

/// Whether training shows X-rays like those of mirrored(): a view whose picture stays is of parallel beams, for the
/// source of cone beams would be on the patient's other side.
bool can_be_mirrored(const Conditions& conditions);

/// An X-ray on the encoder's picture.
struct MeasuredView {
    std::string name;
    DetectorView view;
    std::vector<float> image;  ///< [rows, cols] line integrals, air 0; up to a scale and an offset if not calibrated
    std::vector<std::uint8_t> measured;  ///< [rows, cols], 0 where the detector saw nothing: padding, shutters
    bool calibrated = true;
};

/// The X-rays of these conditions, in the order of `xrays`, with what of them was measured.
std::vector<MeasuredView> measured_views(const Bundle& bundle, std::span<const XRay> xrays,
                                         const Conditions& conditions);

}  // namespace x2ct
