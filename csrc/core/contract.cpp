#include "core/contract.h"

#include <algorithm>

namespace x2ct {
namespace {

const TensorInfo* find(const std::vector<TensorInfo>& tensors, const std::string& name) {
    const auto found = std::ranges::find(tensors, name, &TensorInfo::name);
    return found == tensors.end() ? nullptr : &*found;
}

std::string names(const std::vector<TensorInfo>& tensors) {
    std::string text;
    for (const auto& tensor : tensors) text += (text.empty() ? "" : ", ") + tensor.name;
    return text;
}

// Whether a tensor of `shape` can go where `declared` is asked for; -1 is any size.
bool fits(const Shape& shape, const Shape& declared) {
    return std::ranges::equal(shape, declared, [](std::int64_t a, std::int64_t b) { return b < 0 || a == b; });
}

void check_tensor(const std::vector<TensorInfo>& tensors, const char* kind, const std::string& name,
                  const Shape& shape) {
    const TensorInfo* tensor = find(tensors, name);
    if (tensor == nullptr) {
        throw InputError(std::string("denoiser: ") + kind + ": found " + names(tensors) + ", expected one named " +
                         name);
    }
    if (!fits(shape, tensor->shape)) {
        throw InputError("denoiser: " + name + ": found shape " + to_string(shape) + ", expected " +
                         to_string(tensor->shape));
    }
}

}  // namespace

void check_denoiser(const Network& denoiser, const Device& device, const Shape& shape) {
    if (denoiser.device() != device.name()) {
        throw InputError("sampler: device: found a network on " + denoiser.device() + ", expected one on " +
                         device.name());
    }
    check_tensor(denoiser.inputs(), "inputs", "x", shape);
    check_tensor(denoiser.inputs(), "inputs", "sigma", {shape.front()});
    check_tensor(denoiser.outputs(), "outputs", "denoised", shape);
}

void check_condition(const Network& denoiser, const std::string& name, const Shape& shape) {
    if (name == "x" || name == "sigma") {
        throw InputError("condition: found " + name + ", which the sampler sets itself");
    }
    check_tensor(denoiser.inputs(), "inputs", name, shape);
}

void check_lifted(const Lift::Output& output, const Buffer& values, const Shape& shape) {
    if (static_cast<std::int64_t>(values.count()) != volume_of(shape)) {
        throw InputError("lift: " + output.name + ": found " + std::to_string(values.count()) +
                         " values, expected those of " + to_string(shape) + ": another grid than the sampler's");
    }
}

bool is_condition(const TensorInfo& input) { return input.name != "x" && input.name != "sigma"; }

InputError missing_condition(const TensorInfo& input) {
    return InputError("sampler: condition " + input.name + ": found none, expected " + to_string(input.shape) +
                      "; call set_condition before run");
}

}  // namespace x2ct
