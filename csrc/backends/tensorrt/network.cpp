#include "network.h"

#include <algorithm>
#include <filesystem>

#include "cuda.h"
#include "files.h"
#include "runtime.h"
#include "session.h"
#include "shapes.h"
#include "x2ct/error.h"

namespace x2ct::tensorrt {
namespace {

using Profile = nvinfer1::OptProfileSelector;

void check_options(const NetworkOptions& options) {
    if (!options.provider.empty() || !options.provider_options.empty()) {
        throw InputError("provider: found \"" + options.provider +
                         "\" or options of one, expected none: tensorrt has no execution providers; "
                         "use backend onnxruntime");
    }
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(options.path, ignored)) {
        throw InputError(options.path + ": file: found none, expected a TensorRT plan");
    }
    if (options.path.ends_with(".onnx")) {
        throw InputError(options.path +
                         ": file: found an ONNX network, expected a TensorRT plan; build it with "
                         "'x2ct build --backend tensorrt'");
    }
}

TensorInfo describe(const nvinfer1::ICudaEngine& engine, const std::string& name, const std::string& path) {
    if (engine.getTensorDataType(name.c_str()) != nvinfer1::DataType::kFLOAT) {
        throw InputError(path + ": " + name + ": found another type, expected f32");
    }
    return {name, shape_of(engine.getTensorShape(name.c_str()))};
}

// The sizes that the caller fixes must lie in the plan's profile; its free axes then have them.
void fix(Engine& engine, const NetworkOptions& options) {
    for (const auto& [name, shape] : options.shapes) {
        const auto found = std::ranges::find(engine.inputs, name, &TensorInfo::name);
        if (found == engine.inputs.end()) {
            throw InputError(options.path + ": shapes: found " + name + ", expected names of its inputs");
        }
        const Shape least = shape_of(engine.engine->getProfileShape(name.c_str(), 0, Profile::kMIN));
        const Shape largest = shape_of(engine.engine->getProfileShape(name.c_str(), 0, Profile::kMAX));
        if (!is_within(shape, least, largest)) {
            throw InputError(options.path + ": " + name + ": found shape " + to_string(shape) + ", expected " +
                             range_text(least, largest) + ", which the plan was built for; build another");
        }
        found->shape = shape;
    }
}

}  // namespace

TensorRtNetwork::TensorRtNetwork(const NetworkOptions& options) : engine_(std::make_shared<Engine>()) {
    check_options(options);
    Engine& engine = *engine_;
    engine.device = device_index(options.device);
    engine.stream = options.stream;
    const OnDevice current(engine.device);
    engine.runtime = make_runtime(engine.errors);
    const auto plan = read_file(options.path);
    if (!plan) throw InputError(options.path + ": file: found something unreadable, expected a TensorRT plan");
    engine.engine.reset(engine.runtime->deserializeCudaEngine(plan->data(), plan->size()));
    if (!engine.engine) engine.errors.raise("reading the plan " + options.path);
    engine.engine->setErrorRecorder(&engine.errors);
    precision_ = precision_in(engine.engine->getName());
    if (precision_.empty()) {
        throw InputError(options.path + ": file: found a plan of another program, expected one that x2ct built");
    }
    if (options.precision != "auto" && options.precision != precision_) {
        throw MissingRuntime("precision " + options.precision + ": the plan " + options.path + " computes in " +
                             precision_ + "; build one in " + options.precision);
    }
    for (std::int32_t i = 0; i < engine.engine->getNbIOTensors(); ++i) {
        const std::string name = engine.engine->getIOTensorName(i);
        const bool is_input = engine.engine->getTensorIOMode(name.c_str()) == nvinfer1::TensorIOMode::kINPUT;
        (is_input ? engine.inputs : engine.outputs).push_back(describe(*engine.engine, name, options.path));
    }
    fix(engine, options);
}

std::string TensorRtNetwork::runtime_version() const { return version(); }

std::int64_t TensorRtNetwork::scratch_bytes() const { return engine_->engine->getDeviceMemorySizeV2(); }

std::unique_ptr<Session> TensorRtNetwork::session() {
    return guarded("making a session", [&] { return std::make_unique<TensorRtSession>(engine_); });
}

}  // namespace x2ct::tensorrt
