#include "runtime.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <utility>

#include "x2ct/error.h"

namespace x2ct::tensorrt {
namespace {

using Make = void*(void* logger, std::int32_t version) noexcept;
using MakeParser = void*(void* network, void* logger, int version) noexcept;
using Version = std::int32_t() noexcept;

struct Library {
    void* handle = nullptr;
    Make* runtime = nullptr;
    Make* builder = nullptr;
    std::string version;
};

Library& library() {
    static Library one;
    return one;
}

[[noreturn]] void unusable(const std::string& what) {
    throw MissingRuntime("backend tensorrt: " + what + "; pip install 'tensorrt==" + std::to_string(NV_TENSORRT_MAJOR) +
                         ".*'");
}

// A library prints nothing. What matters comes by the recorders; this keeps the last complaint for where there is no
// object yet to have one.
class Logger : public nvinfer1::ILogger {
  public:
    void log(Severity severity, const char* text) noexcept override {
        if (severity > Severity::kERROR || text == nullptr) return;
        try {
            const std::lock_guard lock(mutex_);
            last_ = text;
        } catch (...) {  // nothing may leave here
            return;
        }
    }

    std::string last() const {
        const std::lock_guard lock(mutex_);
        return last_;
    }

  private:
    mutable std::mutex mutex_;
    std::string last_;
};

Logger& logger() {
    static auto& one = *new Logger();  // TensorRT keeps the first that it is given, to the end of the process
    return one;
}

template <typename Function>
Function* find(void* handle, const char* name) {
    return reinterpret_cast<Function*>(dlsym(handle, name));
}

std::string library_version(void* handle) {
    std::string text;
    for (const char* part : {"Major", "Minor", "Patch", "Build"}) {
        auto* const get = find<Version>(handle, (std::string("getInferLib") + part + "Version").c_str());
        if (get == nullptr) continue;
        if (!text.empty()) text += '.';
        text += std::to_string(get());
    }
    return text;
}

// Beside libnvinfer, wherever that was found; by name alone where the loader doesn't tell.
std::string parser_path() {
    std::string name = "libnvonnxparser.so." + std::to_string(NV_TENSORRT_MAJOR);
    link_map* map = nullptr;
    if (dlinfo(library().handle, RTLD_DI_LINKMAP, static_cast<void*>(&map)) != 0 || map == nullptr) return name;
    const auto beside = std::filesystem::path(map->l_name).parent_path() / name;
    std::error_code ignored;
    return std::filesystem::exists(beside, ignored) ? beside.string() : name;
}

MakeParser* parser_function() {
    static MakeParser* function = nullptr;
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    if (function != nullptr) return function;
    const std::string path = parser_path();
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed, like libnvinfer
    if (handle == nullptr) {
        const char* const text = dlerror();
        unusable("its ONNX parser can't be opened: " + one_line(text == nullptr ? path : text));
    }
    function = find<MakeParser>(handle, "createNvOnnxParser_INTERNAL");
    if (function == nullptr) unusable(path + " has no createNvOnnxParser_INTERNAL, so it is no parser of TensorRT's");
    return function;
}

template <typename Thing>
Thing* made(Make* make, const char* what) {
    // TensorRT looks at the version itself and gives nothing where it can't serve it.
    auto* const thing = make == nullptr ? nullptr : static_cast<Thing*>(make(&logger(), NV_TENSORRT_VERSION));
    if (thing != nullptr) return thing;
    const std::string said = logger().last();
    unusable("version " + version() + " makes no " + what + (said.empty() ? "" : ": " + one_line(said)));
}

}  // namespace

void start(void* handle) {
    Library found{handle, find<Make>(handle, "createInferRuntime_INTERNAL"),
                  find<Make>(handle, "createInferBuilder_INTERNAL"), library_version(handle)};
    if (found.runtime == nullptr || found.builder == nullptr) {
        unusable(
            "the library has no createInferRuntime_INTERNAL and createInferBuilder_INTERNAL, so it is no TensorRT");
    }
    const std::string wanted = std::to_string(NV_TENSORRT_MAJOR);
    if (!found.version.starts_with(wanted + ".")) {
        unusable("found version " + (found.version.empty() ? "unknown" : found.version) + ", expected " + wanted +
                 ".x");
    }
    library() = std::move(found);
}

std::string version() { return library().version; }

std::shared_ptr<nvinfer1::IRuntime> make_runtime(Errors& errors) {
    std::shared_ptr<nvinfer1::IRuntime> runtime(made<nvinfer1::IRuntime>(library().runtime, "runtime"));
    runtime->setErrorRecorder(&errors);
    return runtime;
}

std::unique_ptr<nvinfer1::IBuilder> make_builder(Errors& errors) {
    std::unique_ptr<nvinfer1::IBuilder> builder(made<nvinfer1::IBuilder>(library().builder, "builder"));
    builder->setErrorRecorder(&errors);
    return builder;
}

std::unique_ptr<nvonnxparser::IParser> make_parser(nvinfer1::INetworkDefinition& network) {
    auto* const parser = parser_function()(&network, &logger(), NV_ONNX_PARSER_VERSION);
    if (parser == nullptr) unusable("its ONNX parser is of another version");
    return std::unique_ptr<nvonnxparser::IParser>(static_cast<nvonnxparser::IParser*>(parser));
}

}  // namespace x2ct::tensorrt
