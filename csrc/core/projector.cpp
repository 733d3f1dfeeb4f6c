// Joseph's projector and its transpose. Rays live in voxel-index space, where slices are integers and interpolation
// needs no affine; millimetres return only in the step's length.
#include "x2ct/projector.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<Vec3, 3>;

Vec3 cross(const Vec3& a, const Vec3& b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

double dot(const Vec3& a, const Vec3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

double norm(const Vec3& a) { return std::sqrt(dot(a, a)); }

Vec3 times(const Mat3& m, const Vec3& a) { return {dot(m[0], a), dot(m[1], a), dot(m[2], a)}; }

// Inverse by cofactors; `what` names the matrix when it has none. The determinant is judged against the product of the
// rows' lengths, so that units and magnification don't matter.
Mat3 inverse(const Mat3& m, const std::string& what) {
    const Mat3 cofactor = {cross(m[1], m[2]), cross(m[2], m[0]), cross(m[0], m[1])};
    const double determinant = dot(m[0], cofactor[0]);
    const double size = norm(m[0]) * norm(m[1]) * norm(m[2]);
    if (!(std::abs(determinant) > 1e-12 * size)) {
        throw InputError(what + ": found a singular matrix, expected one that can be inverted");
    }
    Mat3 result{};
    for (int row = 0; row < 3; ++row) {
        for (int col = 0; col < 3; ++col) {
            result[row][col] = cofactor[col][row] / determinant;
        }
    }
    return result;
}

template <std::size_t Count>
void require_finite(const std::array<double, Count>& matrix, const std::string& what) {
    if (!std::all_of(matrix.begin(), matrix.end(), [](double value) { return std::isfinite(value); })) {
        throw InputError(what + ": values: found NaN or infinity, expected finite numbers");
    }
}

// One ray as Joseph walks it: at slice k of `axis` it is at base + k * slope in the two other axes.
struct Ray {
    int axis = 0;                        // the axis that the ray follows most closely, in index space
    std::int64_t first = 0, last = 0;    // slices [first, last) that can touch the volume
    double base_b = 0.0, slope_b = 0.0;  // the slower of the other axes
    double base_c = 0.0, slope_c = 0.0;  // the faster of the other axes
    float step_mm = 0.0F;                // length of the ray between two slices
};

// The axes that are not `axis`, the slower one in memory first.
constexpr std::array<std::array<int, 2>, 3> kOthers = {{{1, 2}, {0, 2}, {0, 1}}};

struct Clip {
    double low = -std::numeric_limits<double>::infinity();
    double high = std::numeric_limits<double>::infinity();

    // Keeps the k for which low_at <= base + k * slope <= high_at.
    void within(double base, double slope, double low_at, double high_at) {
        if (slope == 0.0) {
            if (base < low_at || base > high_at) {
                high = -std::numeric_limits<double>::infinity();
            }
            return;
        }
        const double a = (low_at - base) / slope;
        const double b = (high_at - base) / slope;
        low = std::max(low, std::min(a, b));
        high = std::min(high, std::max(a, b));
    }
};

// Derives every pixel's ray from P composed with the affine.
class RayFan {
  public:
    RayFan(const VolumeGrid& grid, const DetectorView& view) : shape_(grid.shape) {
        for (const std::int64_t extent : grid.shape) {
            if (extent < 1) {
                throw InputError("volume: shape: found an empty axis, expected at least one voxel along each");
            }
        }
        if (view.rows < 1 || view.cols < 1) {
            throw InputError("view: shape: found an empty detector, expected at least one row and one column");
        }
        const auto& affine = grid.index_to_mm;
        const auto& p = view.matrix;
        require_finite(affine, "index_to_mm");
        require_finite(p, "P");
        if (affine[12] != 0.0 || affine[13] != 0.0 || affine[14] != 0.0 || affine[15] != 1.0) {
            throw InputError("index_to_mm: last row: found other numbers, expected 0 0 0 1");
        }
        for (int row = 0; row < 3; ++row) {
            for (int col = 0; col < 3; ++col) {
                to_mm_[row][col] = affine[4 * row + col];
            }
        }
        inverse(to_mm_, "index_to_mm");  // only to refuse a singular affine

        Mat3 m{};  // the left 3x3 of P * index_to_mm
        Vec3 t{};  // its last column
        for (int row = 0; row < 3; ++row) {
            for (int col = 0; col < 3; ++col) {
                m[row][col] =
                    p[4 * row] * affine[col] + p[4 * row + 1] * affine[4 + col] + p[4 * row + 2] * affine[8 + col];
            }
            t[row] = p[4 * row] * affine[3] + p[4 * row + 1] * affine[7] + p[4 * row + 2] * affine[11] + p[4 * row + 3];
        }
        const Vec3 depth = {p[8], p[9], p[10]};
        cone_ = norm(depth) > 1e-12 * std::abs(p[11]);
        if (cone_) {
            // w (u, v, 1) = m x + t: the source is where it vanishes; a pixel's ray leaves it along m^-1 (u, v, 1),
            // which raises w, so that it points away from the source's front.
            inverse_ = inverse(m, "P");
            origin_ = times(inverse_, {-t[0], -t[1], -t[2]});
        } else {
            if (!(p[11] > 0.0)) {
                throw InputError("P: third row: found w <= 0 everywhere, expected w > 0 (1 for a parallel beam)");
            }
            // (u, v) w = m x + t has the null vector of m's first two rows as its direction; with that as a third row
            // the system is square, and its zero chooses the point of the ray that is nearest to the origin.
            m[2] = cross(m[0], m[1]);
            const double size = norm(m[0]) * norm(m[1]);
            if (!(norm(m[2]) > 1e-12 * size)) {
                throw InputError("P: found rows that are parallel or zero, expected two independent directions");
            }
            direction_ = m[2];
            inverse_ = inverse(m, "P");
            scale_ = p[11];
            offset_ = {t[0], t[1]};
        }
    }

    // The ray of column u and row v.
    Ray ray(double u, double v) const {
        Vec3 point = origin_;
        Vec3 direction = direction_;
        if (cone_) {
            direction = times(inverse_, {u, v, 1.0});
        } else {
            point = times(inverse_, {u * scale_ - offset_[0], v * scale_ - offset_[1], 0.0});
        }
        Ray ray;
        for (int axis = 1; axis < 3; ++axis) {
            if (std::abs(direction[axis]) > std::abs(direction[ray.axis])) {
                ray.axis = axis;
            }
        }
        const int a = ray.axis;
        const int b = kOthers[a][0];
        const int c = kOthers[a][1];
        ray.slope_b = direction[b] / direction[a];
        ray.slope_c = direction[c] / direction[a];
        ray.base_b = point[b] - point[a] * ray.slope_b;
        ray.base_c = point[c] - point[a] * ray.slope_c;
        ray.step_mm = static_cast<float>(norm(times(to_mm_, direction)) / std::abs(direction[a]));

        Clip clip{0.0, static_cast<double>(shape_[a] - 1)};
        clip.within(ray.base_b, ray.slope_b, -1.0, static_cast<double>(shape_[b]));
        clip.within(ray.base_c, ray.slope_c, -1.0, static_cast<double>(shape_[c]));
        if (clip.low <= clip.high) {
            // One slice of margin each way: the samples there are checked one by one.
            ray.first = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::ceil(clip.low)) - 1);
            ray.last = std::min<std::int64_t>(shape_[a], static_cast<std::int64_t>(std::floor(clip.high)) + 2);
            if (cone_) {
                in_front(direction[a], point[a], ray);
            }
        }
        return ray;
    }

    // Whether neighbouring rows, rather than columns, read neighbouring memory.
    bool rows_are_contiguous(const DetectorView& view) const {
        const double u = 0.5 * static_cast<double>(view.cols - 1);
        const double v = 0.5 * static_cast<double>(view.rows - 1);
        const Ray centre = ray(u, v);
        const double middle = 0.5 * static_cast<double>(shape_[centre.axis] - 1);
        const auto fast_coordinate = [&](const Ray& r) { return r.base_c + middle * r.slope_c; };
        const double along_u = fast_coordinate(ray(u + 1e-3, v)) - fast_coordinate(centre);
        const double along_v = fast_coordinate(ray(u, v + 1e-3)) - fast_coordinate(centre);
        return std::abs(along_v) > std::abs(along_u);
    }

  private:
    static void in_front(double direction, double source, Ray& ray) {
        // The ray is at slice k after (k - source) / direction; only positive times are in front of the source.
        if (direction > 0.0) {
            if (source >= 0.0) {
                ray.first = std::max(ray.first, saturate(std::floor(source)) + 1);
            }
        } else if (source < static_cast<double>(ray.last)) {
            ray.last = std::min(ray.last, saturate(std::ceil(source)));
        }
    }

    static std::int64_t saturate(double value) {
        constexpr double kFar = 1e15;
        return static_cast<std::int64_t>(std::clamp(value, -kFar, kFar));
    }

    std::array<std::int64_t, 3> shape_;
    Mat3 to_mm_{};
    Mat3 inverse_{};
    Vec3 origin_{};
    Vec3 direction_{};
    std::array<double, 2> offset_{};
    double scale_ = 1.0;
    bool cone_ = false;
};

// A volume in memory as one ray sees it: sizes and strides along its axis and the two others.
struct Layout {
    std::int64_t size_b, size_c;
    std::int64_t stride_a, stride_b, stride_c;

    Layout(const std::array<std::int64_t, 3>& shape, int axis) {
        const std::array<std::int64_t, 3> strides = {shape[1] * shape[2], shape[2], 1};
        size_b = shape[kOthers[axis][0]];
        size_c = shape[kOthers[axis][1]];
        stride_a = strides[axis];
        stride_b = strides[kOthers[axis][0]];
        stride_c = strides[kOthers[axis][1]];
    }
};

// Where a ray meets slice k: the voxel below it in both axes, and the fractions beyond that voxel.
struct Crossing {
    std::int64_t b, c;
    float fraction_b, fraction_c;
};

inline double at(double base, double slope, std::int64_t k) { return base + static_cast<double>(k) * slope; }

// For coordinates that are known not to be negative.
inline Crossing crossing_inside(const Ray& ray, std::int64_t k) {
    const double b = at(ray.base_b, ray.slope_b, k);
    const double c = at(ray.base_c, ray.slope_c, k);
    const auto whole_b = static_cast<std::int64_t>(b);
    const auto whole_c = static_cast<std::int64_t>(c);
    return {whole_b, whole_c, static_cast<float>(b - static_cast<double>(whole_b)),
            static_cast<float>(c - static_cast<double>(whole_c))};
}

inline Crossing crossing_anywhere(const Ray& ray, std::int64_t k) {
    const double b = at(ray.base_b, ray.slope_b, k);
    const double c = at(ray.base_c, ray.slope_c, k);
    const double whole_b = std::floor(b);
    const double whole_c = std::floor(c);
    return {static_cast<std::int64_t>(whole_b), static_cast<std::int64_t>(whole_c), static_cast<float>(b - whole_b),
            static_cast<float>(c - whole_c)};
}

// The part [first, last) of a ray where all four corners of every crossing are voxels. Coordinates are monotone in k,
// rounding included, so that checking both ends proves what lies between.
struct Interior {
    std::int64_t first, last;

    Interior(const Ray& ray, const Layout& layout, std::int64_t from, std::int64_t to) : first(from), last(from) {
        const double limit_b = static_cast<double>(layout.size_b - 1);
        const double limit_c = static_cast<double>(layout.size_c - 1);
        Clip clip{static_cast<double>(from), static_cast<double>(to - 1)};
        clip.within(ray.base_b, ray.slope_b, 0.0, limit_b);
        clip.within(ray.base_c, ray.slope_c, 0.0, limit_c);
        if (!(clip.low <= clip.high)) {
            return;
        }
        const auto inside = [&](std::int64_t k) {
            const double b = at(ray.base_b, ray.slope_b, k);
            const double c = at(ray.base_c, ray.slope_c, k);
            return b >= 0.0 && b < limit_b && c >= 0.0 && c < limit_c;
        };
        std::int64_t low = static_cast<std::int64_t>(std::ceil(clip.low));
        std::int64_t high = static_cast<std::int64_t>(std::floor(clip.high)) + 1;
        while (low < high && !inside(low)) {
            ++low;
        }
        while (low < high && !inside(high - 1)) {
            --high;
        }
        if (low < high) {
            first = low;
            last = high;
        }
    }
};

// Calls visit(offset, weight) for each corner of the crossing at slice k that is a voxel.
template <typename Visit>
inline void visit_corners(const Ray& ray, const Layout& layout, std::int64_t k, const Visit& visit) {
    const Crossing x = crossing_anywhere(ray, k);
    for (int j = 0; j < 2; ++j) {
        for (int i = 0; i < 2; ++i) {
            const std::int64_t b = x.b + j;
            const std::int64_t c = x.c + i;
            if (b >= 0 && b < layout.size_b && c >= 0 && c < layout.size_c) {
                const float weight_b = j == 0 ? 1.0F - x.fraction_b : x.fraction_b;
                const float weight_c = i == 0 ? 1.0F - x.fraction_c : x.fraction_c;
                visit(k * layout.stride_a + b * layout.stride_b + c * layout.stride_c, weight_b * weight_c);
            }
        }
    }
}

// The sum over the slices [from, to) of the interpolated volume, in voxels of step length.
double integrate(const float* volume, const Layout& layout, const Ray& ray, std::int64_t from, std::int64_t to) {
    const Interior interior(ray, layout, from, to);
    double sum = 0.0;
    const auto edge = [&](std::int64_t k) {
        visit_corners(ray, layout, k, [&](std::int64_t offset, float weight) { sum += weight * volume[offset]; });
    };
    for (std::int64_t k = from; k < interior.first; ++k) {
        edge(k);
    }
    for (std::int64_t k = interior.first; k < interior.last; ++k) {
        const Crossing x = crossing_inside(ray, k);
        const float* corner = volume + k * layout.stride_a + x.b * layout.stride_b + x.c * layout.stride_c;
        const float* next = corner + layout.stride_b;
        const float near = corner[0] + x.fraction_c * (corner[layout.stride_c] - corner[0]);
        const float far = next[0] + x.fraction_c * (next[layout.stride_c] - next[0]);
        sum += near + x.fraction_b * (far - near);
    }
    for (std::int64_t k = interior.last; k < to; ++k) {
        edge(k);
    }
    return sum;
}

// The transpose of `integrate`: adds `value` times the same weights to the slices [from, to).
void spread(float* volume, const Layout& layout, const Ray& ray, std::int64_t from, std::int64_t to, float value) {
    const Interior interior(ray, layout, from, to);
    const auto edge = [&](std::int64_t k) {
        visit_corners(ray, layout, k, [&](std::int64_t offset, float weight) { volume[offset] += weight * value; });
    };
    for (std::int64_t k = from; k < interior.first; ++k) {
        edge(k);
    }
    for (std::int64_t k = interior.first; k < interior.last; ++k) {
        const Crossing x = crossing_inside(ray, k);
        float* corner = volume + k * layout.stride_a + x.b * layout.stride_b + x.c * layout.stride_c;
        float* next = corner + layout.stride_b;
        const float far = value * x.fraction_b;
        const float near = value - far;
        const float far_right = far * x.fraction_c;
        const float near_right = near * x.fraction_c;
        corner[0] += near - near_right;
        corner[layout.stride_c] += near_right;
        next[0] += far - far_right;
        next[layout.stride_c] += far_right;
    }
    for (std::int64_t k = interior.last; k < to; ++k) {
        edge(k);
    }
}

// Calls work(i) for every i in [0, count), each once, by whichever thread is free: lines through the body cost more
// than lines beside it.
template <typename Work>
void for_each_index(std::int64_t count, int threads, const Work& work) {
    if (threads < 0) {
        throw InputError("threads: found " + std::to_string(threads) + ", expected 0 (every processor) or more");
    }
    std::atomic<std::int64_t> next{0};
    parallel_for(std::min<std::int64_t>(count, thread_count(threads)), 1, 1, threads, [&](std::int64_t, std::int64_t) {
        for (std::int64_t i = next++; i < count; i = next++) {
            work(i);
        }
    });
}

// The detector as lines of pixels whose rays lie next to each other in memory.
struct Lines {
    std::int64_t count, length;
    std::int64_t line_stride, pixel_stride;
    bool along_rows;

    Lines(const RayFan& fan, const DetectorView& view) : along_rows(fan.rows_are_contiguous(view)) {
        count = along_rows ? view.cols : view.rows;
        length = along_rows ? view.rows : view.cols;
        line_stride = along_rows ? 1 : view.cols;
        pixel_stride = along_rows ? view.cols : 1;
    }

    // Where a pixel lies in the image's memory.
    std::int64_t offset(std::int64_t line, std::int64_t pixel) const {
        return line * line_stride + pixel * pixel_stride;
    }

    Ray ray(const RayFan& fan, std::int64_t line, std::int64_t pixel) const {
        const auto major = static_cast<double>(line);
        const auto minor = static_cast<double>(pixel);
        return along_rows ? fan.ray(major, minor) : fan.ray(minor, major);
    }
};

}  // namespace

void project(const float* volume, const VolumeGrid& grid, const DetectorView& view, float* image, int threads) {
    const RayFan fan(grid, view);
    const Lines lines(fan, view);
    const std::array<Layout, 3> layouts = {Layout(grid.shape, 0), Layout(grid.shape, 1), Layout(grid.shape, 2)};
    for_each_index(lines.count, threads, [&](std::int64_t line) {
        for (std::int64_t pixel = 0; pixel < lines.length; ++pixel) {
            const Ray ray = lines.ray(fan, line, pixel);
            double sum = 0.0;
            if (ray.first < ray.last) {
                sum = integrate(volume, layouts[static_cast<std::size_t>(ray.axis)], ray, ray.first, ray.last);
            }
            image[lines.offset(line, pixel)] = static_cast<float>(sum * ray.step_mm);
        }
    });
}

void backproject(const float* image, const VolumeGrid& grid, const DetectorView& view, float* volume, bool accumulate,
                 int threads) {
    const RayFan fan(grid, view);
    const Lines lines(fan, view);
    if (!accumulate) {
        std::fill_n(volume, grid.shape[0] * grid.shape[1] * grid.shape[2], 0.0F);
    }
    // Rays of a cone may follow different axes. Each axis is a pass; within a pass a chunk of slices has one writer,
    // which takes the rays in a fixed order, so that every voxel's sum is formed in the same order for any thread
    // count.
    constexpr std::uint8_t kNone = 3;
    std::vector<std::uint8_t> axes(static_cast<std::size_t>(lines.count * lines.length), kNone);
    for_each_index(lines.count, threads, [&](std::int64_t line) {
        for (std::int64_t pixel = 0; pixel < lines.length; ++pixel) {
            if (image[lines.offset(line, pixel)] != 0.0F) {
                const Ray ray = lines.ray(fan, line, pixel);
                if (ray.first < ray.last) {
                    axes[static_cast<std::size_t>(line * lines.length + pixel)] = static_cast<std::uint8_t>(ray.axis);
                }
            }
        }
    });
    constexpr std::int64_t kChunk = 32;
    for (std::uint8_t axis = 0; axis < kNone; ++axis) {
        if (std::find(axes.begin(), axes.end(), axis) == axes.end()) {
            continue;
        }
        const Layout layout(grid.shape, axis);
        const std::int64_t slices = grid.shape[axis];
        for_each_index((slices + kChunk - 1) / kChunk, threads, [&](std::int64_t chunk) {
            const std::int64_t begin = chunk * kChunk;
            const std::int64_t end = std::min(slices, begin + kChunk);
            for (std::int64_t line = 0; line < lines.count; ++line) {
                for (std::int64_t pixel = 0; pixel < lines.length; ++pixel) {
                    if (axes[static_cast<std::size_t>(line * lines.length + pixel)] != axis) {
                        continue;
                    }
                    const Ray ray = lines.ray(fan, line, pixel);
                    const std::int64_t from = std::max(begin, ray.first);
                    const std::int64_t to = std::min(end, ray.last);
                    if (from < to) {
                        spread(volume, layout, ray, from, to, image[lines.offset(line, pixel)] * ray.step_mm);
                    }
                }
            }
        });
    }
}

}  // namespace x2ct
