#include "x2ct/xray.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "x2ct/error.h"

namespace x2ct {
namespace {

// The pixels that a target pixel is made of, and their weights, which sum to 1, and to less at the image's border.
struct Taps {
    std::int64_t first = 0;
    std::vector<float> weights;
};

std::vector<Taps> taps_of(std::int64_t size, double spacing, std::int64_t target_size, double target_spacing) {
    const double ratio = target_spacing / spacing, reach = std::max(1.0, ratio);
    const auto count = static_cast<std::int64_t>(std::ceil(2 * reach)) + 2;
    std::vector<Taps> all(static_cast<std::size_t>(target_size));
    std::vector<double> weights(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < target_size; ++i) {
        const double centre = (static_cast<double>(i) - static_cast<double>(target_size - 1) / 2) * ratio +
                              static_cast<double>(size - 1) / 2;
        const auto begin = static_cast<std::int64_t>(std::floor(centre - reach));
        double sum = 0;
        for (std::int64_t k = 0; k < count; ++k) {
            weights[k] = std::max(0.0, 1 - std::abs(static_cast<double>(begin + k) - centre) / reach);
            sum += weights[k];  // before the taps outside are dropped: they are air
        }
        Taps& taps = all[i];
        taps.first = std::clamp<std::int64_t>(begin, 0, size);
        for (std::int64_t k = taps.first; k < std::min(size, begin + count); ++k) {
            taps.weights.push_back(static_cast<float>(weights[k - begin] / sum));
        }
    }
    return all;
}

void check_grid(std::array<std::int64_t, 2> shape, std::array<double, 2> spacing, const char* what) {
    constexpr std::int64_t kMost = 1 << 20;
    for (int axis = 0; axis < 2; ++axis) {
        if (shape[axis] < 1 || shape[axis] > kMost) {
            throw InputError(std::string(what) + ": shape: found " + std::to_string(shape[axis]) +
                             " pixels along a side, expected 1 to " + std::to_string(kMost));
        }
        if (!(spacing[axis] > 0 && std::isfinite(spacing[axis]))) {
            throw InputError(std::string(what) + ": spacing: found " + std::to_string(spacing[axis]) +
                             ", expected a number above 0");
        }
    }
}

using Row = std::array<double, 3>;

double length(const Row& row) { return std::sqrt(row[0] * row[0] + row[1] * row[1] + row[2] * row[2]); }

}  // namespace

std::vector<float> resample(const float* image, std::array<std::int64_t, 2> shape, std::array<double, 2> spacing,
                            std::array<std::int64_t, 2> target_shape, std::array<double, 2> target_spacing) {
    check_grid(shape, spacing, "X-ray");
    check_grid(target_shape, target_spacing, "X-ray grid");
    for (int axis = 0; axis < 2; ++axis) {
        const double reach = target_spacing[axis] / spacing[axis];
        if (reach > 1e6) throw InputError("X-ray: spacing: found pixels a million times finer than the grid's");
    }
    const std::int64_t columns = shape[1], target_columns = target_shape[1];
    const auto down = taps_of(shape[0], spacing[0], target_shape[0], target_spacing[0]);
    const auto across = taps_of(columns, spacing[1], target_columns, target_spacing[1]);
    std::vector<float> line(static_cast<std::size_t>(columns));
    std::vector<float> result(static_cast<std::size_t>(target_shape[0] * target_columns));
    for (std::int64_t row = 0; row < target_shape[0]; ++row) {
        std::ranges::fill(line, 0.0f);
        for (std::size_t k = 0; k < down[row].weights.size(); ++k) {
            const float weight = down[row].weights[k];
            const float* from = image + (down[row].first + static_cast<std::int64_t>(k)) * columns;
            for (std::int64_t column = 0; column < columns; ++column) line[column] += weight * from[column];
        }
        for (std::int64_t column = 0; column < target_columns; ++column) {
            const Taps& taps = across[column];
            float sum = 0;
            for (std::size_t k = 0; k < taps.weights.size(); ++k) sum += taps.weights[k] * line[taps.first + k];
            result[row * target_columns + column] = sum;
        }
    }
    return result;
}

std::array<double, 2> pixel_at_isocentre(const std::array<double, 12>& m) {
    const double w = m[11], u = m[3] / w, v = m[7] / w;
    if (!(w > 0)) {
        throw InputError("geometry: matrix: found w = " + std::to_string(w) +
                         " at the isocentre, expected w > 0, in front of the source");
    }
    Row by_row, by_column;
    for (int axis = 0; axis < 3; ++axis) {
        by_row[axis] = (m[4 + axis] - v * m[8 + axis]) / w;
        by_column[axis] = (m[axis] - u * m[8 + axis]) / w;
    }
    return {1 / length(by_row), 1 / length(by_column)};
}

Picture onto_grid(const float* image, std::array<std::int64_t, 2> shape, const std::array<double, 12>& matrix,
                  std::array<std::int64_t, 2> target_shape, std::array<double, 2> spacing_mm) {
    const auto pixel = pixel_at_isocentre(matrix);
    const double scale_v = pixel[0] / spacing_mm[0], scale_u = pixel[1] / spacing_mm[1];
    const auto is_one = [](double scale) { return std::abs(scale - 1) <= 1e-6 + 1e-5; };
    if (shape == target_shape && is_one(scale_u) && is_one(scale_v)) {
        return {std::vector<float>(image, image + shape[0] * shape[1]), matrix};
    }
    Picture picture{resample(image, shape, pixel, target_shape, spacing_mm), {}};
    const auto middle = [](std::int64_t size) { return static_cast<double>(size - 1) / 2; };
    const double shift_u = middle(target_shape[1]) - scale_u * middle(shape[1]);
    const double shift_v = middle(target_shape[0]) - scale_v * middle(shape[0]);
    for (int k = 0; k < 4; ++k) {
        picture.matrix[k] = scale_u * matrix[k] + shift_u * matrix[8 + k];
        picture.matrix[4 + k] = scale_v * matrix[4 + k] + shift_v * matrix[8 + k];
        picture.matrix[8 + k] = matrix[8 + k];
    }
    return picture;
}

}  // namespace x2ct
