// What binding a caller's memory to a network's tensors takes in every backend: which tensor, and whether the shape
// fits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "x2ct/error.h"
#include "x2ct/network.h"

namespace x2ct {

/// Where the tensor of this name stands. Throws InputError.
inline std::size_t index_of(const std::vector<TensorInfo>& tensors, const std::string& name) {
    const auto found = std::ranges::find(tensors, name, &TensorInfo::name);
    if (found == tensors.end()) throw InputError(name + ": found a name that the network doesn't have");
    return static_cast<std::size_t>(found - tensors.begin());
}

/// Whether a shape is the declared one, whose free axes take any size.
inline bool fits(const Shape& shape, const Shape& declared) {
    return std::ranges::equal(shape, declared,
                              [](std::int64_t size, std::int64_t axis) { return size == axis || axis < 0; });
}

/// Throws InputError unless the shape is the tensor's.
inline void check_fits(const TensorInfo& info, const Shape& shape) {
    if (!fits(shape, info.shape)) {
        throw InputError(info.name + ": shape: found " + to_string(shape) + ", expected " + to_string(info.shape));
    }
}

}  // namespace x2ct
