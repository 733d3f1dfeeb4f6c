// Where an X-ray was taken from, as a 3x4 matrix; x2ct/geometry/ has the same conventions.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace x2ct {

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

/// A parallel beam from any angle about z: 0 in front of the patient (AP), 90 at the patient's right (lateral), 180
/// behind. Throws InputError for an angle that is no number or a detector without size.
View parallel_view(const std::string& name, double angle_deg, const Detector& detector = {});

/// A cone beam on a flat detector that faces the source; w is 1 at the isocentre. Pitches are on the detector.
View cone_view(const std::string& name, double angle_deg, double sod_mm, double sdd_mm, const Detector& detector = {});

/// Throws InputError for a matrix from which no rays can be had, or a detector without size.
void check(const View& view);

}  // namespace x2ct
