// Joseph's projector and its transpose on the host. What happens along a ray is kernels/joseph.h, which rays there are
// ray_fan.h; here is who takes which.
#include "x2ct/projector.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "core/ray_fan.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

using kernels::Layout;
using kernels::Ray;

// The transpose of `integrate`: adds `value` times the same weights to the slices [from, to).
void spread(float* volume, const Layout& layout, const Ray& ray, std::int64_t from, std::int64_t to, float value) {
    const kernels::Slices inner = kernels::interior(ray, layout, from, to);
    const auto edge = [&](std::int64_t k) {
        kernels::visit_corners(ray, layout, k,
                               [&](std::int64_t offset, float weight) { volume[offset] += weight * value; });
    };
    for (std::int64_t k = from; k < inner.first; ++k) {
        edge(k);
    }
    for (std::int64_t k = inner.first; k < inner.last; ++k) {
        const kernels::Crossing x = kernels::crossing_inside(ray, k);
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
    for (std::int64_t k = inner.last; k < to; ++k) {
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

    Lines(const RayFan& fan, const DetectorView& view) : along_rows(fan.rows_are_contiguous()) {
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
    for_each_index(lines.count, threads, [&](std::int64_t line) {
        for (std::int64_t pixel = 0; pixel < lines.length; ++pixel) {
            const Ray ray = lines.ray(fan, line, pixel);
            double sum = 0.0;
            if (ray.first < ray.last) {
                const Layout layout = kernels::layout_of(grid.shape.data(), ray.axis);
                sum = kernels::integrate(volume, layout, ray, ray.first, ray.last);
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
        const Layout layout = kernels::layout_of(grid.shape.data(), axis);
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
