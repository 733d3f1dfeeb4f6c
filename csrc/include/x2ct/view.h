// Where an X-ray was taken from, as a 3x4 matrix, and the geometry file that holds a study's views.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace x2ct {

inline constexpr std::int64_t kMostPixels = 10'000;  ///< along one side of a detector
inline constexpr double kMostTiltDeg = 80;
inline constexpr int kGeometrySchema = 1;
inline constexpr std::size_t kMostViews = 64;  ///< of one study

/// A view whose name gives its source's angle about z, and the slot of a model that takes it: 0 frontal, 1 lateral.
struct NamedView {
    std::string_view name;
    double angle_deg;
    int slot;
};
inline constexpr std::array<NamedView, 3> kNamedViews{{{"ap", 0, 0}, {"pa", 180, 0}, {"lateral", 90, 1}}};

/// One X-ray's geometry. Row-major P: (u w, v w, w) = P (x, y, z, 1), from patient mm (x right, y front, z head, the
/// origin at the grid's index (N - 1) / 2) to column u and row v, integers at pixels' centres.
struct View {
    std::string name;
    std::array<double, 12> matrix{};
    std::int64_t rows = 0, columns = 0;
    double row_mm = 0, column_mm = 0;  ///< pitch on the detector

    bool operator==(const View&) const = default;
};

/// Its detector's pixels, and what it sees at the middle of it.
struct Detector {
    std::int64_t rows = 352, columns = 352;
    double row_mm = 1.25, column_mm = 1.25;
    std::array<double, 3> isocentre_mm{};
};

/// Returns the view of a parallel beam. The angle turns the source about z: 0 is in front of the patient (AP), 90 at
/// the patient's right (lateral), 180 behind (PA); the tilt then lifts it towards the head. Row 0 of the image is the
/// head, column 0 the patient's right, or the patient's front where the detector is closer to the sagittal plane than
/// to the frontal one. Throws InputError for an angle that is no number, a tilt of more than 80 degrees, or a detector
/// without size.
View parallel_view(const std::string& name, double angle_deg, const Detector& detector = {}, double tilt_deg = 0);

/// Returns the view of a cone beam on a flat detector that faces the source; w is 1 at the isocentre. Angle and tilt
/// are those of `parallel_view`, pitches are on the detector. Throws InputError as `parallel_view` does, and for
/// distances that can't be.
View cone_view(const std::string& name, double angle_deg, double sod_mm, double sdd_mm, const Detector& detector = {},
               double tilt_deg = 0);

/// Throws InputError for a matrix from which no rays can be had, or a detector without size.
void check(const View& view);

/// A geometry file's content, see docs/geometry.md: views, each under its own name.
struct Geometry {
    std::vector<View> views;
    /// Where the origin of patient mm lies in the world mm (RAS+) of the CT that the X-rays were projected from, if
    /// any.
    std::optional<std::array<double, 3>> origin_world_mm;
};

/// Returns what a geometry file's text describes. Throws InputError that names `source` and the field.
Geometry read_geometry(const std::string& source, std::string_view text);

/// Reads a geometry file of at most 1 MiB. Throws InputError that names the file and the field.
Geometry load_geometry(const std::string& path);

}  // namespace x2ct
