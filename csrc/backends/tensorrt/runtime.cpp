#include <dlfcn.h>
#include <link.h>
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <utility>

#include "core/names.h"
#include "tensorrt.h"
#include "x2ct/error.h"

namespace x2ct::tensorrt {

void check(cudaError_t result, const std::string& doing) {
    if (result == cudaSuccess) return;
    (void)cudaGetLastError();  // it is told here and must not be met again by the next call
    const std::string line = "tensorrt: " + doing + ": CUDA: " + one_line(cudaGetErrorString(result));
    if (result == cudaErrorMemoryAllocation) throw OutOfMemory(line);
    throw Error(line);
}

void Errors::raise(const std::string& doing) {
    std::vector<Entry> entries;
    {
        const std::lock_guard lock(mutex_);
        entries = std::exchange(entries_, {});
    }
    std::string line = "tensorrt: " + doing + ": ";
    line += entries.empty() ? "it failed without saying why" : one_line(entries.front().text);
    const bool memory = std::ranges::any_of(entries, [](const Entry& one) {
        return one.code == nvinfer1::ErrorCode::kFAILED_ALLOCATION ||
               one.text.find("out of memory") != std::string::npos || one.text.find("OutOfMemory") != std::string::npos;
    });
    if (memory) throw OutOfMemory(line);
    throw Error(line);
}

std::int32_t Errors::getNbErrors() const noexcept {
    const std::lock_guard lock(mutex_);
    return static_cast<std::int32_t>(entries_.size());
}

nvinfer1::ErrorCode Errors::getErrorCode(std::int32_t index) const noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = static_cast<std::size_t>(index);
    return index < 0 || at >= entries_.size() ? nvinfer1::ErrorCode::kINVALID_ARGUMENT : entries_[at].code;
}

nvinfer1::IErrorRecorder::ErrorDesc Errors::getErrorDesc(std::int32_t index) const noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = static_cast<std::size_t>(index);
    return index < 0 || at >= entries_.size() ? "" : entries_[at].text.c_str();
}

void Errors::clear() noexcept {
    const std::lock_guard lock(mutex_);
    entries_.clear();
}

bool Errors::reportError(nvinfer1::ErrorCode code, ErrorDesc text) noexcept {
    constexpr std::size_t kMost = 16;
    try {
        const std::lock_guard lock(mutex_);
        if (entries_.size() < kMost) entries_.push_back({code, text == nullptr ? "" : text});
    } catch (...) {  // nothing may leave here, and one error less is told
        return false;
    }
    return false;  // not fatal: the call that failed says so itself
}

std::string flaw_of_cuda() {
    int count = 0;
    const cudaError_t result = cudaGetDeviceCount(&count);
    (void)cudaGetLastError();
    if (result == cudaSuccess && count > 0) return "";
    const std::string why = result == cudaSuccess ? "no CUDA-capable device is detected" : cudaGetErrorString(result);
    return "CUDA has no GPU here: " + one_line(why) + "; it needs an NVIDIA GPU and its driver";
}

int device_index(const std::string& device) {
    if (device == "auto" || place_of(device).is_cpu()) {
        throw MissingRuntime("device " + device + ": the tensorrt backend drives cuda only; use device cuda");
    }
    if (const std::string flaw = flaw_of_cuda(); !flaw.empty()) throw MissingRuntime("device " + device + ": " + flaw);
    int count = 0;
    check(cudaGetDeviceCount(&count), "counting GPUs");
    const int found = place_of(device).index;
    if (found >= count) {
        throw MissingRuntime("device " + device + ": found " + std::to_string(count) +
                             " GPUs, the last is cuda:" + std::to_string(count - 1));
    }
    return found;
}

std::string describe_device(int index) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, index), "asking cuda:" + std::to_string(index));
    return std::string(properties.name) + ", compute capability " + std::to_string(properties.major) + "." +
           std::to_string(properties.minor);
}

OnDevice::OnDevice(int index) {
    check(cudaGetDevice(&before_), "asking for the current device");
    check(cudaSetDevice(index), "choosing cuda:" + std::to_string(index));
}

OnDevice::~OnDevice() { (void)cudaSetDevice(before_); }

Stream::Stream(int device) : device_(device) {
    const OnDevice current(device_);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
}

Stream::~Stream() { (void)cudaStreamDestroy(stream_); }

DeviceMemory::DeviceMemory(int device, std::size_t bytes) : device_(device), bytes_(bytes) {
    if (bytes == 0) return;
    const OnDevice current(device_);
    check(cudaMalloc(&data_, bytes), "allocating " + std::to_string(bytes >> 20) + " MiB on the GPU");
}

DeviceMemory::~DeviceMemory() {
    if (data_ != nullptr) (void)cudaFree(data_);
}

std::optional<std::vector<char>> read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const std::streamoff end = file.tellg();
    if (!file || end < 0) return std::nullopt;
    std::vector<char> content(static_cast<std::size_t>(end));
    file.seekg(0);
    if (!file.read(content.data(), end)) return std::nullopt;
    return content;
}

void write_file(const std::string& path, const void* data, std::size_t bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
    file.close();
    if (!file) throw Error(path + ": output: not written: is the disk full?");
}

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
