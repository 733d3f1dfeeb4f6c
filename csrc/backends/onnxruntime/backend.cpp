#include "x2ct/backend.h"

#include <dlfcn.h>
#include <onnxruntime_run_options_config_keys.h>
#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <string>
#include <utility>

#include "../binding.h"
#include "onnxruntime.h"
#include "x2ct/error.h"

namespace x2ct::onnxruntime {

std::string Failures::text_of(const std::exception& error) {
    std::istringstream words(error.what());
    std::string text, word;
    while (words >> word) {
        if (!word.starts_with("/onnxruntime_src/")) text += word + " ";
    }
    return one_line(text);
}

namespace {

const OrtApiBase* base = nullptr;
thread_local std::vector<std::string>* listener = nullptr;

void ORT_API_CALL take(void*, OrtLoggingLevel, const char*, const char*, const char*, const char* message) {
    if (listener != nullptr) listener->emplace_back(message);
}

[[noreturn]] void unusable(const std::string& what) {
    throw MissingRuntime("backend onnxruntime: " + what + "; pip install 'onnxruntime>=1." +
                         std::to_string(ORT_API_VERSION) + "'");
}

}  // namespace

void start(void* library) {
    using GetApiBase = const OrtApiBase*();
    auto* const get = reinterpret_cast<GetApiBase*>(dlsym(library, "OrtGetApiBase"));
    if (get == nullptr) unusable("the library has no OrtGetApiBase, so it is no ONNX Runtime");
    base = get();
    // Asked before GetApi, which prints where it has to refuse: release 1.N has the versions up to N of its interface.
    const std::string found = version();
    const bool is_1 = found.starts_with("1.");
    if (!is_1 || std::strtol(found.c_str() + 2, nullptr, 10) < ORT_API_VERSION) {
        unusable("found version " + found + ", expected 1." + std::to_string(ORT_API_VERSION) + " or a newer 1.x");
    }
    const OrtApi* const api = base->GetApi(ORT_API_VERSION);
    if (api == nullptr) unusable("version " + found + " has no interface " + std::to_string(ORT_API_VERSION));
    Ort::InitApi(api);
}

std::string version() { return base->GetVersionString(); }

Ort::Env& environment() {
    static auto& env = *new Ort::Env(ORT_LOGGING_LEVEL_ERROR, "x2ct", take, nullptr);
    return env;
}

Log::Log() { listener = &lines_; }

Log::~Log() { listener = nullptr; }

// The ONNX Runtime backend: the library's door. It is not linked to the runtime: whoever opens this library has opened
// the runtime before, and hands over what dlopen gave.
namespace {

class OrtBackend : public Backend {
  public:
    std::string version() const override { return onnxruntime::version(); }

    std::vector<std::string> devices() const override {
        return guarded("asking", [] {
            std::vector<std::string> here = {"cpu"};
            if (flaw_of_provider("cuda").empty()) here.emplace_back("cuda");
            return here;
        });
    }

    std::map<std::string, std::string> missing_devices() const override {
        return guarded("asking", [] {
            std::map<std::string, std::string> missing;
            const std::string flaw = flaw_of_provider("cuda");
            if (!flaw.empty()) missing["cuda"] = flaw;
            return missing;
        });
    }

    std::vector<std::string> precisions(const std::string& device) const override { return precisions_of(device); }

    std::unique_ptr<Network> load(const NetworkOptions& options) override {
        return guarded("loading " + options.path, [&] { return std::make_unique<OrtNetwork>(options); });
    }
};

}  // namespace
}  // namespace x2ct::onnxruntime

extern "C" X2CT_VISIBLE std::uint32_t x2ct_backend_abi() { return x2ct::kBackendAbi; }

extern "C" X2CT_VISIBLE x2ct::Backend* x2ct_backend_open(void* runtime) {
    using namespace x2ct::onnxruntime;
    guarded("starting", [&] {
        start(runtime);
        environment();
    });
    static auto* backend = new OrtBackend();  // never destroyed, like the runtime
    return backend;
}

namespace x2ct::onnxruntime {
namespace {

bool is_free(const Shape& shape) {
    return std::ranges::any_of(shape, [](std::int64_t axis) { return axis < 0; });
}

// A tensor over the caller's memory: nothing is copied on the way in or out.
Ort::Value wrap(const Ort::MemoryInfo& memory, const TensorInfo& info, float* data, const Shape& shape) {
    check_fits(info, shape);
    return Ort::Value::CreateTensor<float>(memory, data, static_cast<std::size_t>(volume_of(shape)), shape.data(),
                                           shape.size());
}

}  // namespace

OrtSession::OrtSession(std::shared_ptr<Ort::Session> model, std::vector<TensorInfo> inputs,
                       std::vector<TensorInfo> outputs, Ort::MemoryInfo memory, Ort::RunOptions run, bool records)
    : model_(std::move(model)),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      memory_(std::move(memory)),
      run_(std::move(run)),
      binding_(*model_),
      records_(records),
      is_bound_(outputs_.size(), false) {
    for (const TensorInfo& output : outputs_) binding_.BindOutput(output.name.c_str(), memory_);
}

void OrtSession::set_input(const std::string& name, const float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const TensorInfo& info = inputs_[index_of(inputs_, name)];
        binding_.BindInput(name.c_str(), wrap(memory_, info, const_cast<float*>(data), shape));  // only ever read
        bound_[name] = data;
    });
}

void OrtSession::set_output(const std::string& name, float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const std::size_t index = index_of(outputs_, name);
        binding_.BindOutput(name.c_str(), wrap(memory_, outputs_[index], data, shape));
        is_bound_[index] = true;
        bound_[name] = data;
    });
}

// A provider that replays what it recorded reads and writes where it did then: other memory is another graph.
void OrtSession::choose_graph() {
    const int graph = graphs_.try_emplace(bound_, static_cast<int>(graphs_.size()) + 1).first->second;
    run_.AddConfigEntry(kOrtRunOptionsConfigCudaGraphAnnotation, std::to_string(graph).c_str());
}

void OrtSession::evaluate() {
    guarded("evaluating", [&] {
        for (std::size_t i = 0; i < outputs_.size(); ++i) {
            // The runtime keeps its own output for the next evaluation, whose size may be another.
            if (!is_bound_[i] && is_free(outputs_[i].shape)) binding_.BindOutput(outputs_[i].name.c_str(), memory_);
        }
        if (records_) choose_graph();
        model_->Run(run_, binding_);
    });
}

TensorView OrtSession::output(const std::string& name) {
    return guarded("reading " + name, [&] {
        const auto values = binding_.GetOutputValues();  // handles: the binding keeps the memory
        const Ort::Value& value = values.at(index_of(outputs_, name));
        return TensorView{value.GetTensorData<float>(), value.GetTensorTypeAndShapeInfo().GetShape()};
    });
}

}  // namespace x2ct::onnxruntime
