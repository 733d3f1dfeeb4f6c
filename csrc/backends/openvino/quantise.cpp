#include "openvino.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <openvino/opsets/opset8.hpp>
#include <string>
#include <vector>

namespace x2ct::openvino {
namespace {

namespace op = ov::opset8;

constexpr std::size_t kActivations = 256, kWeights = 255;  // values; of weights as many below 0 as above

std::shared_ptr<op::Constant> constant(const ov::Shape& shape, const std::vector<float>& values) {
    return op::Constant::create(ov::element::f32, shape, values);
}

// The value before is the value after, but for the rounding.
ov::Output<ov::Node> rounded(const ov::Output<ov::Node>& value, const std::shared_ptr<op::Constant>& least,
                             const std::shared_ptr<op::Constant>& most, std::size_t levels) {
    return std::make_shared<op::FakeQuantize>(value, least, most, least, most, levels);
}

// The range is moved by less than a step, so that 0, which pads, is one of the values.
ov::Output<ov::Node> activation(const ov::Output<ov::Node>& value, const std::array<double, 2>& range) {
    const double step = (range[1] - range[0]) / (kActivations - 1), below = std::round(-range[0] / step);
    const auto least = static_cast<float>(-below * step);
    const auto most = static_cast<float>((kActivations - 1 - below) * step);
    return rounded(value, constant({}, {least}), constant({}, {most}), kActivations);
}

// A constant's numbers; bundles keep them in f16 and convert them.
std::vector<float> numbers(const ov::Output<ov::Node>& value) {
    std::shared_ptr<ov::Node> node = value.get_node_shared_ptr();
    if (ov::is_type<op::Convert>(node)) node = node->get_input_node_shared_ptr(0);
    const auto found = ov::as_type_ptr<op::Constant>(node);
    return found ? found->cast_vector<float>() : std::vector<float>{};
}

ov::Output<ov::Node> weights(const std::vector<float>& values, const ov::Shape& shape) {
    ov::Shape channels(shape.size(), 1);
    channels[0] = shape[0];
    const std::size_t each = values.size() / shape[0];
    std::vector<float> least, most;
    for (auto from = values.begin(); from != values.end(); from += static_cast<std::ptrdiff_t>(each)) {
        float largest = 0;
        std::for_each(from, from + static_cast<std::ptrdiff_t>(each),
                      [&](float value) { largest = std::max(largest, std::abs(value)); });
        most.push_back(largest > 0 ? largest : 1);
        least.push_back(-most.back());
    }
    return rounded(constant(shape, values), constant(channels, least), constant(channels, most), kWeights);
}

std::string fact(const ov::Node& node, const char* key) {
    const auto& facts = node.get_rt_info();
    const auto found = facts.find(key);
    return found == facts.end() ? "" : found->second.as<std::string>();
}

}  // namespace

void quantise(ov::Model& model, const NetworkOptions& options) {
    std::size_t done = 0;
    for (const auto& node : model.get_ordered_ops()) {
        const auto range = options.int8.find(node->get_friendly_name());
        if (range == options.int8.end()) continue;
        const bool convolves = ov::is_type<op::Convolution>(node);
        const std::vector<float> values = convolves ? numbers(node->input_value(1)) : std::vector<float>{};
        if (values.empty()) {
            throw InputError(options.path + ": int8: found " + range->first + ", a " + node->get_type_name() +
                             ", expected names of convolutions with constant weights");
        }
        const ov::Shape shape = node->get_input_shape(1);
        node->input(0).replace_source_output(activation(node->input_value(0), range->second));
        node->input(1).replace_source_output(weights(values, shape));
        ++done;
    }
    if (done == 0 || done != options.int8.size()) {
        throw InputError(options.path + ": int8: found ranges of " + std::to_string(options.int8.size()) +
                         " convolutions, of which it has " + std::to_string(done) +
                         ", expected one or more, all there");
    }
}

void check_quantised(const ov::Model& runtime, const NetworkOptions& options) {
    std::size_t in_int8 = 0;
    for (const auto& node : runtime.get_ordered_ops()) {
        const std::string precision = fact(*node, "runtimePrecision");
        const bool convolves = fact(*node, "layerType") == "Convolution";
        in_int8 += convolves && (precision == "u8" || precision == "i8") ? 1 : 0;
    }
    if (in_int8 < options.int8.size()) {
        throw MissingRuntime("precision int8: openvino compiled " + std::to_string(in_int8) + " of " +
                             std::to_string(options.int8.size()) + " convolutions of " + options.path +
                             " in 8 bits; ask for another precision");
    }
}

}  // namespace x2ct::openvino
