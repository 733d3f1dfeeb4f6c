#include "graph.h"

#include <algorithm>

#include "x2ct/error.h"

namespace x2ct::onnxruntime {
namespace {

Port port(const std::string& name, const Ort::TypeInfo& type, const std::string& path) {
    if (type.GetONNXType() != ONNX_TYPE_TENSOR ||
        type.GetTensorTypeAndShapeInfo().GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) {
        throw InputError(path + ": " + name + ": found another type, expected a tensor of f32");
    }
    const auto tensor = type.GetTensorTypeAndShapeInfo();
    Port one{{name, tensor.GetShape()}, {}};
    std::vector<const char*> axes(one.info.shape.size(), "");
    tensor.GetSymbolicDimensions(axes.data(), axes.size());
    one.axes.assign(axes.begin(), axes.end());
    return one;
}

}  // namespace

std::vector<Port> inputs_of(const Ort::Session& model, const std::string& path) {
    const Ort::AllocatorWithDefaultOptions allocator;
    std::vector<Port> ports;
    ports.reserve(model.GetInputCount());
    for (std::size_t i = 0; i < model.GetInputCount(); ++i) {
        ports.push_back(port(model.GetInputNameAllocated(i, allocator).get(), model.GetInputTypeInfo(i), path));
    }
    return ports;
}

std::vector<Port> outputs_of(const Ort::Session& model, const std::string& path) {
    const Ort::AllocatorWithDefaultOptions allocator;
    std::vector<Port> ports;
    ports.reserve(model.GetOutputCount());
    for (std::size_t i = 0; i < model.GetOutputCount(); ++i) {
        ports.push_back(port(model.GetOutputNameAllocated(i, allocator).get(), model.GetOutputTypeInfo(i), path));
    }
    return ports;
}

std::map<std::string, std::int64_t> sizes_of_axes(const std::vector<Port>& inputs, const NetworkOptions& options) {
    std::map<std::string, std::int64_t> sizes;
    for (const auto& [name, shape] : options.shapes) {
        const auto found = std::ranges::find(inputs, name, [](const Port& one) { return one.info.name; });
        if (found == inputs.end()) {
            throw InputError(options.path + ": shapes: found " + name + ", expected names of its inputs");
        }
        const Shape& declared = found->info.shape;
        const auto refuse = [&](const std::string& expected) {
            std::string line = options.path + ": shapes: " + name;
            line += ": found shape " + to_string(shape);
            throw InputError(line += ", expected " + expected);
        };
        if (std::ranges::any_of(shape, [](std::int64_t size) { return size < 1; })) refuse("sizes >= 1");
        if (shape.size() != declared.size()) refuse(to_string(declared));
        for (std::size_t axis = 0; axis < shape.size(); ++axis) {
            if (declared[axis] >= 0 && declared[axis] != shape[axis]) refuse(to_string(declared));
            if (declared[axis] >= 0 || found->axes[axis].empty()) continue;
            const auto [entry, is_new] = sizes.try_emplace(found->axes[axis], shape[axis]);
            if (!is_new && entry->second != shape[axis]) {
                refuse(std::to_string(entry->second) + " for its axis " + entry->first + ", as in another input");
            }
        }
    }
    return sizes;
}

}  // namespace x2ct::onnxruntime
