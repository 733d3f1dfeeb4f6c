// What an artefact says of itself, in the JSON that `x2ct export` puts into it: its tensors by name, and of which graph
// of a bundle it was made. A TorchScript file and an AOTInductor package know no names of their own. No types of
// PyTorch.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "x2ct/network.h"

namespace x2ct::torch {

/// Grows when the JSON's meaning changes.
inline constexpr int kDescriptionSchema = 1;

/// A tensor as it is declared: an axis is a number ("1"), a name ("X"), or a name's part ("X/4").
struct Port {
    std::string name;
    std::vector<std::string> axes;
};

struct Description {
    std::string onnx_sha256;  ///< of the graph that it was made of
    std::string device;       ///< "cpu" or "cuda": what it was made for
    std::int64_t stride = 1;  ///< X, Y and Z are multiples of it
    std::vector<Port> inputs;
    std::vector<Port> outputs;
};

/// Throws InputError, naming `path`, for a text that describes nothing.
Description description_of(const std::string& text, const std::string& path);

/// The sizes of the named axes, as the shapes that were asked for tell them. Throws InputError.
std::map<std::string, std::int64_t> sizes_of_axes(const Description& description, const NetworkOptions& options);

/// The tensors with those sizes; an axis without one is free, -1.
std::vector<TensorInfo> infos(const std::vector<Port>& ports, const std::map<std::string, std::int64_t>& sizes);

}  // namespace x2ct::torch
