#include <onnxruntime_run_options_config_keys.h>
#include <onnxruntime_session_options_config_keys.h>
#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "onnxruntime.h"
#include "placement.h"
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

namespace {

// A session as the file has it, to learn its inputs and the names of their free axes: only a session tells them. One of
// the CPU's provider, which has no kernels for some of the types that a graph may be typed in.
Ort::Session read(const std::string& path, const Target& target) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) {
        throw InputError(path + ": file: found none, expected an ONNX network");
    }
    Ort::SessionOptions options;
    options.SetGraphOptimizationLevel(ORT_DISABLE_ALL);
    options.SetIntraOpNumThreads(1);
    try {
        if (target.is_typed) append(options, target);
        return {environment(), path.c_str(), options};
    } catch (const Ort::Exception& error) {
        throw InputError(path + ": file: found something unreadable, expected an ONNX network; " +
                         Failures::text_of(error));
    }
}

// The type that a graph's inside was given (export/precision.py), or f32.
std::string type_of(const Ort::Session& model) {
    const Ort::AllocatorWithDefaultOptions allocator;
    const auto told = model.GetModelMetadata().LookupCustomMetadataMapAllocated("x2ct.precision", allocator);
    const std::string type = told ? told.get() : "f32";
    return type == "tf32" ? "f32" : type;
}

void check_type(const Target& target, const std::string& found, const std::string& path) {
    const std::string wanted = target.is_typed ? target.precision : "f32";
    if (found == wanted) return;
    std::string line = path + ": precision: found a graph in " + found;
    line += ", expected one in " + wanted;
    if (!target.is_typed) throw InputError(line + "; ask for precision " + found);
    throw MissingRuntime(line + "; make it: x2ct build MODEL --graph --precision " + wanted);
}

// All of the runtime's optimisations: its constant folding turns weights that are stored in float16 to float32 once,
// here, and not in each evaluation.
Ort::SessionOptions session_options(const NetworkOptions& options, const Target& target,
                                    const std::map<std::string, std::int64_t>& sizes) {
    Ort::SessionOptions made;
    made.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
    made.SetExecutionMode(ORT_SEQUENTIAL);
    made.SetInterOpNumThreads(1);
    if (options.threads > 0) made.SetIntraOpNumThreads(options.threads);
    // Between evaluations the processors are the sampler's.
    made.AddConfigEntry(kOrtSessionOptionsConfigForceSpinningStop, "1");
    for (const auto& [axis, size] : sizes) {
        Ort::ThrowOnError(Ort::GetApi().AddFreeDimensionOverrideByName(made, axis.c_str(), size));
    }
    append(made, target);
    return made;
}

std::string text_of(const std::vector<std::string>& nodes) {
    constexpr std::size_t kMost = 5;
    std::string text;
    for (std::size_t i = 0; i < std::min(nodes.size(), kMost); ++i) text += (i ? ", " : "") + nodes[i];
    return nodes.size() > kMost ? text + " and " + std::to_string(nodes.size() - kMost) + " more" : text;
}

// On a GPU no node may quietly go to the CPU. The runtime can refuse such a graph, but doesn't say what is wrong with
// it; its log does.
std::shared_ptr<Ort::Session> compile(const NetworkOptions& options, const Target& target,
                                      Ort::SessionOptions& session_options) {
    const auto make = [&] {
        return std::make_shared<Ort::Session>(environment(), options.path.c_str(), session_options);
    };
    if (target.is_cpu()) return make();
    session_options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_VERBOSE);
    const Log log;
    auto model = make();
    const Placement nodes = placement(log.lines());
    if (!nodes.on_cpu.empty()) {
        throw MissingRuntime(options.path + ": onnxruntime's " + target.provider + " provider has no kernel for " +
                             text_of(nodes.on_cpu) + "; use device cpu, or another backend");
    }
    if (nodes.told) return model;
    session_options.AddConfigEntry(kOrtSessionOptionsDisableCPUEPFallback, "1");
    return make();
}

std::vector<TensorInfo> infos(const std::vector<Port>& ports) {
    std::vector<TensorInfo> result;
    result.reserve(ports.size());
    for (const Port& port : ports) result.push_back(port.info);
    return result;
}

}  // namespace

OrtNetwork::OrtNetwork(const NetworkOptions& options) : target_(choose(options)) {
    if (options.threads < 0)
        throw InputError("threads: found " + std::to_string(options.threads) + ", expected 0 or more");
    const Ort::Session plain = read(options.path, target_);
    check_type(target_, type_of(plain), options.path);
    const auto sizes = sizes_of_axes(inputs_of(plain, options.path), options);
    guarded("compiling " + options.path, [&] {
        Ort::SessionOptions made = session_options(options, target_, sizes);
        model_ = compile(options, target_, made);
    });
    inputs_ = infos(inputs_of(*model_, options.path));
    outputs_ = infos(outputs_of(*model_, options.path));
}

std::string OrtNetwork::runtime_version() const { return version(); }

std::unique_ptr<Session> OrtNetwork::session() {
    return guarded("making a session", [&] {
        Ort::RunOptions run;
        run.SetRunLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);
        // On a stream of the caller's, the caller says when to wait for it.
        if (target_.stream != nullptr) {
            run.AddConfigEntry(kOrtRunOptionsConfigDisableSynchronizeExecutionProviders, "1");
        }
        return std::make_unique<OrtSession>(model_, inputs_, outputs_, memory_of(target_), std::move(run),
                                            target_.records);
    });
}

}  // namespace x2ct::onnxruntime
