#include "x2ct/lift.h"

#include <algorithm>

#include "kernels/ray_kernel.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr double kCoordinateUnitMm = 100;  // networks take patient mm divided by this

Index cells(const Index& voxels, std::int64_t stride) {
    return {voxels[0] / stride, voxels[1] / stride, voxels[2] / stride};
}

Index minus(const Index& a, const Index& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }

}  // namespace

Lift::Lift(std::shared_ptr<Network> network, std::shared_ptr<Device> device, Tiling tiling,
           std::array<double, 3> spacing_mm)
    : network_(std::move(network)), device_(std::move(device)), tiling_(tiling), spacing_mm_(spacing_mm) {
    tiling_.check();
    const auto& tile = tiling_.tile;
    for (const auto& output : network_->outputs()) {
        const Shape& shape = output.shape;
        const std::int64_t stride = shape.size() == 5 && shape[2] > 0 ? tile[0] / shape[2] : 0;
        if (stride < 1 || tiling_.stride % stride != 0 ||
            shape != Shape{1, shape[1], tile[0] / stride, tile[1] / stride, tile[2] / stride}) {
            throw InputError("lift: " + output.name + ": found shape " + to_string(shape) +
                             ", expected [1, C, X, Y, Z] for a tile of " + to_string(Shape(tile.begin(), tile.end())));
        }
        outputs_.push_back({output.name, shape[1], stride});
    }
    coords_ = Buffer(device_, static_cast<std::size_t>(3 * tile[0] * tile[1] * tile[2]));
    session_ = network_->session();
    session_->set_input("coords", coords_.data(), {1, 3, tile[0], tile[1], tile[2]});
}

void Lift::set_input(const std::string& name, const float* data, const Shape& shape) {
    const auto count = static_cast<std::size_t>(volume_of(shape));
    Buffer buffer(device_, count);
    device_->upload(buffer.data(), data, count);
    set_input(name, std::move(buffer), shape);
}

void Lift::set_input(const std::string& name, Buffer values, const Shape& shape) {
    session_->set_input(name, values.data(), shape);
    inputs_[name] = std::move(values);
}

// Coordinates depend on nothing else: a grid of one tile gets them once.
void Lift::place(const Index& origin) {
    if (placed_ && origin == origin_) return;
    kernels::Coordinates work{};
    for (std::size_t axis = 0; axis < 3; ++axis) {
        work.tile[axis] = tiling_.tile[axis], work.origin[axis] = origin[axis];
        work.middle[axis] = static_cast<double>(tiling_.grid[axis] - 1) / 2;
        work.spacing_mm[axis] = spacing_mm_[axis];
    }
    work.unit_mm = kCoordinateUnitMm;
    work.to = coords_.data();
    device_->run(RayKernel{work});
    origin_ = origin, placed_ = true;
}

void Lift::evaluate(const Box& box) {
    const auto& [grid, tile, halo, stride] = tiling_;
    Index origin{};
    for (std::size_t axis = 0; axis < 3; ++axis) {
        const std::int64_t begin = std::max<std::int64_t>(0, box.origin[axis] - halo);
        const std::int64_t end = std::min(grid[axis], box.origin[axis] + box.extent[axis] + halo);
        if (end - begin > tile[axis]) {
            throw InputError("lift: box: found " + std::to_string(end - begin) + " voxels with its halo, expected " +
                             std::to_string(tile[axis]) + " or less");
        }
        origin[axis] = std::min(begin, grid[axis] - tile[axis]);
    }
    place(origin);
    session_->evaluate();
}

std::vector<Lift::Whole> Lift::whole() {
    const auto& grid = tiling_.grid;
    std::vector<Whole> made;
    for (const Output& output : outputs_) {
        const Index size = cells(grid, output.stride);
        const auto count = static_cast<std::size_t>(output.channels * size[0] * size[1] * size[2]);
        made.push_back({output, Buffer(device_, count)});
    }
    const Box all{{}, grid};
    for (const Tile& tile : tiling_.tiles(0)) {
        evaluate(tile.output);
        for (std::size_t k = 0; k < outputs_.size(); ++k) copy(k, tile.output, made[k].values.data(), all);
    }
    return made;
}

void Lift::copy(std::size_t index, const Box& box, float* to, const Box& region) const {
    const auto& [name, channels, stride] = outputs_[index];
    BoxCopy part;
    part.from = session_->output(name).data;
    part.from_grid = cells(tiling_.tile, stride);
    part.from_origin = cells(minus(box.origin, origin_), stride);
    part.to = to;
    part.to_grid = cells(region.extent, stride);
    part.to_origin = cells(minus(box.origin, region.origin), stride);
    part.extent = cells(box.extent, stride);
    part.channels = channels;
    device_->copy(part);
}

}  // namespace x2ct
