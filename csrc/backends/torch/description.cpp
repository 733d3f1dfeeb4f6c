#include "description.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "x2ct/error.h"

namespace x2ct::torch {
namespace {

using Json = nlohmann::json;

std::vector<Port> ports(const Json& list) {
    std::vector<Port> made;
    for (const Json& one : list) {
        Port port{one.at("name").get<std::string>(), {}};
        for (const Json& axis : one.at("shape")) {
            port.axes.push_back(axis.is_number() ? std::to_string(axis.get<std::int64_t>()) : axis.get<std::string>());
        }
        made.push_back(std::move(port));
    }
    return made;
}

// "X/4" is the axis X and the divisor 4; "7" no axis and the size 7.
struct Axis {
    std::string name;
    std::int64_t number = 1;
};

Axis parse(const std::string& text) {
    if (text.find_first_not_of("0123456789") == std::string::npos) return {"", std::stoll(text)};
    const std::size_t slash = text.find('/');
    return {text.substr(0, slash), slash == std::string::npos ? 1 : std::stoll(text.substr(slash + 1))};
}

bool is_spatial(const std::string& axis) { return axis == "X" || axis == "Y" || axis == "Z"; }

std::string list(const std::vector<std::string>& axes) {
    std::string text;
    for (const std::string& axis : axes) text += (text.empty() ? "" : ", ") + axis;
    return "[" + text + "]";
}

}  // namespace

Description description_of(const std::string& text, const std::string& path) {
    const auto refuse = [&](const std::string& found) {
        return InputError(path + ": description: found " + found + ", expected an artefact that x2ct export made");
    };
    if (text.empty()) throw refuse("none");
    try {
        const Json json = Json::parse(text);
        if (json.at("schema").get<int>() != kDescriptionSchema) {
            throw refuse("schema " + json.at("schema").dump() + " and not " + std::to_string(kDescriptionSchema));
        }
        return {json.at("onnx_sha256").get<std::string>(), json.at("device").get<std::string>(),
                std::max<std::int64_t>(1, json.at("stride").get<std::int64_t>()), ports(json.at("inputs")),
                ports(json.at("outputs"))};
    } catch (const Json::exception&) {
        throw refuse("something else");
    }
}

std::map<std::string, std::int64_t> sizes_of_axes(const Description& description, const NetworkOptions& options) {
    std::map<std::string, std::int64_t> sizes;
    for (const auto& [name, shape] : options.shapes) {
        const auto found = std::ranges::find(description.inputs, name, &Port::name);
        if (found == description.inputs.end()) {
            throw InputError(options.path + ": shapes: found " + name + ", expected names of its inputs");
        }
        const auto refuse = [&](const std::string& expected) {
            std::string line = options.path + ": shapes: " + name;
            line += ": found shape " + to_string(shape);
            throw InputError(line += ", expected " + expected);
        };
        if (std::ranges::any_of(shape, [](std::int64_t size) { return size < 1; })) refuse("sizes >= 1");
        if (shape.size() != found->axes.size()) refuse(list(found->axes));
        for (std::size_t i = 0; i < shape.size(); ++i) {
            const Axis axis = parse(found->axes[i]);
            if (axis.name.empty()) {
                if (axis.number != shape[i]) refuse(list(found->axes));
                continue;
            }
            const std::int64_t size = shape[i] * axis.number;
            if (is_spatial(axis.name) && size % description.stride != 0) {
                refuse("multiples of " + std::to_string(description.stride) + " for " + axis.name);
            }
            const auto [entry, is_new] = sizes.try_emplace(axis.name, size);
            if (!is_new && entry->second != size) {
                refuse(std::to_string(entry->second) + " for its axis " + axis.name + ", as in another input");
            }
        }
    }
    return sizes;
}

std::vector<TensorInfo> infos(const std::vector<Port>& ports, const std::map<std::string, std::int64_t>& sizes) {
    std::vector<TensorInfo> made;
    for (const Port& port : ports) {
        TensorInfo info{port.name, {}};
        for (const std::string& text : port.axes) {
            const Axis axis = parse(text);
            const auto size = sizes.find(axis.name);
            info.shape.push_back(axis.name.empty() ? axis.number
                                                   : (size == sizes.end() ? -1 : size->second / axis.number));
        }
        made.push_back(std::move(info));
    }
    return made;
}

}  // namespace x2ct::torch
