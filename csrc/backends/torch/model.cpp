#include <ATen/Context.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "pool.h"
#include "torch_backend.h"
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

namespace {

constexpr const char* kScriptKey = "x2ct.json";  // a file inside a TorchScript file
constexpr const char* kPackageKey = "x2ct";      // of a package's metadata

std::string name_of(c10::ScalarType type) {
    switch (type) {
        case c10::kFloat:
            return "f32";
        case c10::kHalf:
            return "f16";
        case c10::kBFloat16:
            return "bf16";
        default:
            return "";
    }
}

// Where two types were found: the narrower, for a typed graph keeps its scalars' layers in f32.
std::string narrower(const std::string& one, const std::string& other) {
    return one.empty() || one == "f32" ? (other.empty() ? one : other) : one;
}

// Frozen: weights are constants of the graph, in its blocks too.
std::string weights_of(const ::torch::jit::Block& block) {
    std::string found;
    for (const ::torch::jit::Node* node : block.nodes()) {
        if (node->kind() == c10::prim::Constant && node->hasAttribute(c10::attr::value) &&
            node->kindOf(c10::attr::value) == ::torch::jit::AttributeKind::t) {
            const at::Tensor& constant = node->t(c10::attr::value);
            if (constant.dim() > 1) found = narrower(found, name_of(constant.scalar_type()));
        }
        for (const ::torch::jit::Block* inner : node->blocks()) found = narrower(found, weights_of(*inner));
    }
    return found;
}

class Script : public Model {
  public:
    Script(const std::string& path, const Place& place) {
        ::torch::jit::ExtraFilesMap extra = {{kScriptKey, ""}};
        module_ = ::torch::jit::load(path, device_of(place), extra);
        module_.eval();
        description_ = extra[kScriptKey];
    }

    std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, void*) override {
        // As it was frozen: otherwise the first calls are watched, and the graph is compiled anew from what they
        // showed.
        const ::torch::jit::GraphOptimizerEnabledGuard as_it_is(false);
        const c10::IValue found = module_.forward({inputs.begin(), inputs.end()});
        std::vector<at::Tensor> outputs;
        for (const c10::IValue& one : found.toTupleRef().elements()) outputs.push_back(one.toTensor());
        return outputs;
    }

    std::string description() const override { return description_; }

    std::string weights() const override {
        std::string found = weights_of(*module_.get_method("forward").graph()->block());
        for (const at::Tensor& one : module_.buffers()) {
            if (one.dim() > 1) found = narrower(found, name_of(one.scalar_type()));
        }
        return found;
    }

  private:
    mutable ::torch::jit::Module module_;
    std::string description_;
};

class Package : public Model {
  public:
    Package(const std::string& path, const Place& place, bool one_stream)
        : loader_(path, "model", one_stream, 1, static_cast<c10::DeviceIndex>(place.is_cpu() ? -1 : place.index)) {}

    std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, void* stream) override {
        return loader_.run(inputs, stream);
    }

    std::string description() const override {
        const auto metadata = loader_.get_metadata();
        const auto found = metadata.find(kPackageKey);
        return found == metadata.end() ? "" : found->second;
    }

    std::string weights() const override {
        std::string found;
        for (const auto& [name, type] : loader_.get_runner()->getConstantNamesToDtypes()) {
            found = narrower(found, name_of(static_cast<c10::ScalarType>(type)));
        }
        return found;
    }

  private:
    mutable ::torch::inductor::AOTIModelPackageLoader loader_;
};

}  // namespace

std::unique_ptr<Model> load_model(const std::string& path, const Place& place, bool one_stream) {
    const std::string kind = std::filesystem::path(path).extension().string();
    if (kind != ".pt" && kind != ".pt2") {
        throw InputError(path + ": file: found " + (kind.empty() ? "no suffix" : kind) +
                         ", expected .pt (TorchScript) or .pt2 (AOTInductor); make one: x2ct export BUNDLE --format "
                         "torchscript");
    }
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) {
        throw InputError(path + ": file: found none, expected an artefact that x2ct export made");
    }
    try {
        if (!place.is_cpu()) at::globalContext().lazyInitDevice(c10::kCUDA);
        if (kind == ".pt") return std::make_unique<Script>(path, place);
        return std::make_unique<Package>(path, place, one_stream);
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        throw InputError(path + ": file: found something unreadable, expected " +
                         (kind == ".pt" ? "TorchScript; " : "an AOTInductor package; ") + Failures::text_of(error));
    }
}

namespace {

// "0" or "1", whether evaluations are to be such that a device can record them; "" where nobody said.
std::string graph_option(const NetworkOptions& options) {
    std::string wanted;
    for (const auto& [key, value] : options.provider_options) {
        if (key != "cuda_graph" || (value != "0" && value != "1")) {
            std::string line = "provider option " + key;
            line += ": found " + value;
            throw InputError(line += ", expected cuda_graph=0 or cuda_graph=1");
        }
        wanted = value;
    }
    return wanted;
}

}  // namespace

TorchNetwork::TorchNetwork(const NetworkOptions& options)
    : place_(place_of(options.device)),
      precision_(choose_precision(options.precision, place_)),
      threads_(options.threads),
      stream_(options.stream),
      graph_(graph_option(options)),
      records_(options.replayed && stream_ != nullptr && graph_ != "0") {
    if (threads_ < 0) throw InputError("threads: found " + std::to_string(threads_) + ", expected 0 or more");
    if (place_.is_cpu() && (!options.provider_options.empty() || stream_ != nullptr)) {
        throw InputError("provider options: found some, expected none: torch has none, and no stream, on the CPU");
    }
    if (!place_.is_cpu()) {
        const std::string flaw = flaw_of_cuda();
        if (!flaw.empty()) throw MissingRuntime("device " + options.device + ": " + flaw);
    }
    model_ = load_model(options.path, place_, stream_ != nullptr);
    const Description told = description_of(model_->description(), options.path);
    // TorchScript runs anywhere; a package is compiled for one kind of device.
    if (told.device != place_.kind && options.path.ends_with(".pt2")) {
        throw InputError(options.path + ": device: found a package for " + told.device + ", expected one for " +
                         place_.kind + "; make it on such a machine");
    }
    const std::string weights = model_->weights(), wanted = precision_ == "tf32" ? "f32" : precision_;
    if (weights != wanted && !(weights.empty() && wanted == "f32")) {
        throw InputError(options.path + ": weights: found " + (weights.empty() ? "none" : weights) + ", expected " +
                         wanted + ", which is the precision that was asked for");
    }
    const auto sizes = sizes_of_axes(told, options);
    inputs_ = infos(told.inputs, sizes);
    outputs_ = infos(told.outputs, sizes);
}

std::string TorchNetwork::runtime_version() const { return version(); }

std::unique_ptr<Session> TorchNetwork::session() {
    const bool tf32 = precision_ != "f32";  // what a narrow graph keeps in f32 may be rounded as well
    return guarded("making a session", [&] {
        auto pool = records_ ? private_pool(place_, stream_) : nullptr;
        if (records_ && pool == nullptr && graph_ == "1") {
            throw MissingRuntime(
                "provider option cuda_graph: found a torch backend that was built without CUDA's headers, expected one "
                "with them; build it where cuda_runtime_api.h is found, or leave the option out");
        }
        return std::make_unique<TorchSession>(model_, inputs_, outputs_, place_, tf32, threads_, stream_,
                                              std::move(pool));
    });
}

}  // namespace x2ct::torch
