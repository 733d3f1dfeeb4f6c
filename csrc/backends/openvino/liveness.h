// How much memory an evaluation needs at once.
#pragma once

#include <cstdint>
#include <openvino/core/model.hpp>

namespace x2ct::openvino {

/// Bytes of the tensors that are alive at once, at most, in a compiled model's runtime graph with static shapes: each
/// lives from the node that makes it to the last that reads it. Constants and the model's inputs are not counted.
std::int64_t most_alive(const ov::Model& runtime);

}  // namespace x2ct::openvino
