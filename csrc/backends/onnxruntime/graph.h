// A graph's inputs and outputs.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <map>
#include <string>
#include <vector>

#include "x2ct/network.h"

namespace x2ct::onnxruntime {

/// A graph's inputs or outputs, with the names of the free axes ("" for one without).
struct Port {
    TensorInfo info;
    std::vector<std::string> axes;
};

/// Throws InputError for other types than float32.
std::vector<Port> inputs_of(const Ort::Session& model, const std::string& path);
std::vector<Port> outputs_of(const Ort::Session& model, const std::string& path);

/// The sizes of free axes, by name, that give the inputs these shapes. Throws InputError where a fixed axis has another
/// size, or one name would have two.
std::map<std::string, std::int64_t> sizes_of_axes(const std::vector<Port>& inputs, const NetworkOptions& options);

}  // namespace x2ct::onnxruntime
