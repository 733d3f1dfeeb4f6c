// SHA-256 (FIPS 180-4), for checksums of a bundle's files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "x2ct/bundle.h"

namespace x2ct {

/// The digest of `data`, 64 hexadecimal digits.
std::string sha256(std::string_view data);

// What an ONNX file says about itself, read before a runtime sees it.

/// The opset of ai.onnx, and the graph's inputs and outputs in their order.
struct GraphFacts {
    std::uint64_t opset = 0;
    std::vector<Tensor> inputs, outputs;
};

/// Walks protobuf's wire format by the field numbers of onnx.proto (IR version 8). Throws InputError naming `source`
/// for what is no ONNX model, or one that doesn't stand alone: external data, operators of another domain than
/// ai.onnx, functions, training information.
GraphFacts read_graph(const std::string& source, std::string_view data);

}  // namespace x2ct
