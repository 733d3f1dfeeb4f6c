#include <algorithm>
#include <cstdint>
#include <filesystem>

#include "tensorrt.h"
#include "x2ct/backend.h"
#include "x2ct/error.h"

namespace x2ct::tensorrt {
namespace {

constexpr const char* kPrefix = "x2ct precision=";

}  // namespace

Shape shape_of(const nvinfer1::Dims& dims) { return dims.nbDims < 0 ? Shape{} : Shape(dims.d, dims.d + dims.nbDims); }

nvinfer1::Dims dims_of(const Shape& shape, const std::string& name) {
    nvinfer1::Dims dims{};
    if (shape.size() > static_cast<std::size_t>(nvinfer1::Dims::MAX_DIMS)) {
        throw InputError(name + ": shape: found " + to_string(shape) + ", expected at most " +
                         std::to_string(nvinfer1::Dims::MAX_DIMS) + " axes");
    }
    dims.nbDims = static_cast<std::int32_t>(shape.size());
    std::ranges::copy(shape, dims.d);
    return dims;
}

bool is_within(const Shape& shape, const Shape& least, const Shape& largest) {
    if (shape.size() != least.size() || shape.size() != largest.size()) return false;
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        if (shape[axis] < least[axis] || shape[axis] > largest[axis]) return false;
    }
    return true;
}

std::string range_text(const Shape& least, const Shape& largest) {
    return least == largest ? to_string(least) : to_string(least) + " to " + to_string(largest);
}

std::string name_for(const std::string& precision) { return kPrefix + precision; }

std::string precision_in(const std::string& name) {
    const std::string prefix = kPrefix;
    return name.starts_with(prefix) ? name.substr(prefix.size()) : "";
}

namespace {

constexpr std::uintptr_t kAlignment = 256;  // what TensorRT asks of a tensor's address

void check_address(const std::string& name, const void* data) {
    if (data == nullptr || reinterpret_cast<std::uintptr_t>(data) % kAlignment != 0) {
        throw InputError(name + ": address: found one that is no multiple of " + std::to_string(kAlignment) +
                         " bytes, expected the start of an allocation on the device");
    }
}

}  // namespace

TensorRtSession::TensorRtSession(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {
    const OnDevice current(engine_->device);
    context_.reset(
        engine_->engine->createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
    if (!context_) engine_->errors.raise("making a session");
    context_->setErrorRecorder(&engine_->errors);
    if (engine_->stream == nullptr) own_stream_.emplace(engine_->device);
}

// What is queued on a stream of the caller's may still read the scratch memory.
TensorRtSession::~TensorRtSession() {
    if (engine_->stream != nullptr) (void)cudaStreamSynchronize(static_cast<cudaStream_t>(engine_->stream));
}

const TensorInfo& TensorRtSession::info(const std::vector<TensorInfo>& tensors, const std::string& name) const {
    const auto found = std::ranges::find(tensors, name, &TensorInfo::name);
    if (found == tensors.end()) throw InputError(name + ": found a name that the network doesn't have");
    return *found;
}

void TensorRtSession::set_input(const std::string& name, const float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const TensorInfo& declared = info(engine_->inputs, name);
        check_address(name, data);
        Shape& bound = shapes_[name];
        if (bound != shape) {
            // The profile's bounds are TensorRT's to check, the sizes that were fixed on loading are ours.
            const bool fits = std::ranges::equal(
                shape, declared.shape, [](std::int64_t size, std::int64_t axis) { return size == axis || axis < 0; });
            if (!fits || !context_->setInputShape(name.c_str(), dims_of(shape, name))) {
                engine_->errors.clear();
                shapes_.erase(name);
                throw InputError(name + ": shape: found " + to_string(shape) + ", expected " +
                                 to_string(declared.shape) + " within the plan's profile");
            }
            bound = shape;
            is_prepared_ = false;
        }
        if (!context_->setInputTensorAddress(name.c_str(), data)) engine_->errors.raise("binding " + name);
    });
}

void TensorRtSession::set_output(const std::string& name, float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        (void)info(engine_->outputs, name);
        check_address(name, data);
        // The caller's memory is as large as its shape says: what the inputs come to must be that.
        if (const Shape made = output_shape(name); made != shape) {
            throw InputError(name + ": shape: found " + to_string(shape) + ", expected " + to_string(made));
        }
        if (!context_->setOutputTensorAddress(name.c_str(), data)) engine_->errors.raise("binding " + name);
        own_outputs_.erase(name);
        bound_outputs_[name] = {data, shape};
    });
}

// Scratch memory and unbound outputs, for the shapes that are bound by now: allocated when they change, never between
// evaluations, so that a recorded evaluation can be replayed.
void TensorRtSession::prepare() {
    for (const TensorInfo& input : engine_->inputs) {
        if (!shapes_.contains(input.name))
            throw InputError("network: " + input.name + ": found none, expected it bound");
    }
    const std::size_t needed = context_->updateDeviceMemorySizeForShapes();
    if (scratch_.bytes() < needed || scratch_.data() == nullptr) {
        scratch_ = DeviceMemory();  // the old one goes before the new one is asked for
        scratch_ = DeviceMemory(engine_->device, std::max<std::size_t>(needed, kAlignment));
    }
    context_->setDeviceMemoryV2(scratch_.data(), static_cast<std::int64_t>(scratch_.bytes()));
    for (const TensorInfo& output : engine_->outputs) {
        const Shape made = output_shape(output.name);
        if (const auto bound = bound_outputs_.find(output.name); bound != bound_outputs_.end()) {
            if (bound->second.shape == made) continue;
            throw InputError(output.name + ": shape: found memory for " + to_string(bound->second.shape) +
                             ", expected for " + to_string(made) + ": bind it again after the inputs");
        }
        const auto bytes = static_cast<std::size_t>(volume_of(made)) * sizeof(float);
        DeviceMemory& own = own_outputs_[output.name];
        if (own.bytes() < bytes) own = DeviceMemory(engine_->device, bytes);
        if (!context_->setOutputTensorAddress(output.name.c_str(), own.data())) {
            engine_->errors.raise("binding " + output.name);
        }
    }
    is_prepared_ = true;
}

void TensorRtSession::evaluate() {
    guarded("evaluating", [&] {
        const OnDevice current(engine_->device);
        if (!is_prepared_) prepare();
        // On a stream of the caller's, the caller says when to wait for it.
        auto* const stream = own_stream_ ? own_stream_->get() : static_cast<cudaStream_t>(engine_->stream);
        if (!context_->enqueueV3(stream)) engine_->errors.raise("evaluating");
        if (own_stream_) check(cudaStreamSynchronize(stream), "evaluating");
    });
}

Shape TensorRtSession::output_shape(const std::string& name) const {
    const Shape shape = shape_of(context_->getTensorShape(name.c_str()));
    if (shape.empty() || std::ranges::any_of(shape, [](std::int64_t size) { return size < 0; })) {
        throw InputError(name + ": shape: found inputs that don't go together, expected all to be bound");
    }
    return shape;
}

TensorView TensorRtSession::output(const std::string& name) {
    return guarded("reading " + name, [&] {
        (void)info(engine_->outputs, name);
        const auto bound = bound_outputs_.find(name);
        const auto own = own_outputs_.find(name);
        if (bound == bound_outputs_.end() && own == own_outputs_.end()) {
            throw InputError(name + ": found no evaluation yet, expected one");
        }
        const float* const data =
            bound != bound_outputs_.end() ? bound->second.data : static_cast<const float*>(own->second.data());
        return TensorView{data, output_shape(name)};
    });
}

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

// The TensorRT backend: the library's door. It is linked neither to TensorRT nor to a shared CUDA runtime: whoever
// opens this library has opened libnvinfer before, and hands over what dlopen gave.
namespace {

class TensorRtBackend : public Backend {
  public:
    std::string version() const override { return tensorrt::version(); }

    std::vector<std::string> devices() const override {
        return flaw_of_cuda().empty() ? std::vector<std::string>{"cuda"} : std::vector<std::string>{};
    }

    std::map<std::string, std::string> missing_devices() const override {
        std::map<std::string, std::string> missing;
        if (const std::string flaw = flaw_of_cuda(); !flaw.empty()) missing["cuda"] = flaw;
        return missing;
    }

    // What a plan can be built in; which one a network has stands in its plan.
    std::vector<std::string> precisions(const std::string&) const override { return {"f16", "bf16", "tf32", "f32"}; }

    std::unique_ptr<Network> load(const NetworkOptions& options) override {
        return guarded("loading " + options.path, [&] { return std::make_unique<TensorRtNetwork>(options); });
    }

    std::string plan_device(const std::string& device) const override { return describe_device(device_index(device)); }

    void build(const PlanOptions& options) override {
        guarded("building " + options.path, [&] { build_plan(options); });
    }
};

}  // namespace
}  // namespace x2ct::tensorrt

extern "C" X2CT_VISIBLE std::uint32_t x2ct_backend_abi() { return x2ct::kBackendAbi; }

extern "C" X2CT_VISIBLE x2ct::Backend* x2ct_backend_open(void* runtime) {
    using namespace x2ct::tensorrt;
    guarded("starting", [&] { start(runtime); });
    static auto* backend = new TensorRtBackend();  // never destroyed, like the runtime
    return backend;
}
