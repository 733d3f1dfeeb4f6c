// The lift on any box of the grid: image features to the denoiser's conditions.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "x2ct/device.h"
#include "x2ct/network.h"
#include "x2ct/tiling.h"

namespace x2ct {

/// A lift compiled for coordinates [1, 3, X, Y, Z] of `tiling.tile`. Used by one thread at a time.
class Lift {
  public:
    /// One of its outputs, [1, channels, X, Y, Z] of the cells of `stride` voxels.
    struct Output {
        std::string name;
        std::int64_t channels;
        std::int64_t stride;
    };

    /// `spacing_mm`: the grid's voxel size. Throws InputError if the network's tensors don't fit.
    Lift(std::shared_ptr<Network> network, std::shared_ptr<Device> device, Tiling tiling,
         std::array<double, 3> spacing_mm);

    const Tiling& tiling() const { return tiling_; }
    const std::vector<Output>& outputs() const { return outputs_; }

    /// Copies an input other than the coordinates to the device, such as the views' matrices.
    void set_input(const std::string& name, const float* data, const Shape& shape);
    /// Takes over an input that is on the device already: what the encoder says.
    void set_input(const std::string& name, Buffer values, const Shape& shape);

    /// Evaluates where `box` and its halo lie. Throws InputError if they don't fit into a tile.
    void evaluate(const Box& box);

    /// An output on the whole grid: [1, channels, X, Y, Z] of cells.
    struct Whole {
        Output output;
        Buffer values;
    };

    /// Every output on the whole grid, put together from tiles.
    std::vector<Whole> whole();

    /// Output `index` on the evaluated `box`, into `to`, which holds the voxels of `region`.
    void copy(std::size_t index, const Box& box, float* to, const Box& region) const;

  private:
    void place(const Index& origin);

    std::shared_ptr<Network> network_;
    std::shared_ptr<Device> device_;
    Tiling tiling_;
    std::array<double, 3> spacing_mm_;
    std::vector<Output> outputs_;
    std::map<std::string, Buffer> inputs_;
    Buffer coords_;
    Index origin_{};
    bool placed_ = false;  // whether the coordinates are those of the tile at origin_
    std::unique_ptr<Session> session_;
};

}  // namespace x2ct
