#include "target.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/names.h"
#include "x2ct/error.h"

namespace x2ct::onnxruntime {
namespace {

// A bundle's graphs are in f32, for which TensorRT may take other types inside them, and TF32 always; CUDA's provider
// takes a graph that is typed. So does the CPU's, which has convolutions in f32 alone and converts before and after
// them: slower than f32, and good for trying such a graph without a GPU.
const std::vector<Provider>& providers() {
    static const std::vector<Provider> all = {
        {"cpu", "cpu", "CPUExecutionProvider", "pip install onnxruntime", nullptr, {{"f32", {}}, {"f16", {}, true}}},
        {"cuda",
         "cuda",
         "CUDAExecutionProvider",
         "pip install onnxruntime-gpu in place of onnxruntime",
         "enable_cuda_graph",
         {{"tf32", {{"use_tf32", "1"}}},
          {"f32", {{"use_tf32", "0"}}},
          {"bf16", {{"use_tf32", "1"}}, true},
          {"f16", {{"use_tf32", "1"}}, true}}},
        {"tensorrt",
         "cuda",
         "TensorrtExecutionProvider",
         "pip install onnxruntime-gpu in place of onnxruntime, and tensorrt",
         "trt_cuda_graph_enable",
         {{"tf32", {}}, {"f16", {{"trt_fp16_enable", "1"}}}, {"bf16", {{"trt_bf16_enable", "1"}}}}},
    };
    return all;
}

constexpr std::array<std::string_view, 6> kPrecisions = {"auto", "f32", "tf32", "bf16", "f16", "int8"};

// Said by --device, --precision and the stream, and by nothing else, so that what is reported is what runs.
constexpr std::array<std::string_view, 8> kReserved = {
    "device_id",       "user_compute_stream", "has_user_compute_stream", "use_tf32",
    "trt_fp16_enable", "trt_bf16_enable",     "trt_int8_enable",         "trt_fp8_enable"};

template <typename Range, typename Name>
std::string list(const Range& range, const Name& name) {
    std::string text;
    for (const auto& one : range) text += (text.empty() ? "" : ", ") + name(one);
    return text;
}

}  // namespace

const Provider& known(const std::string& name) {
    const auto found = std::ranges::find(providers(), name, &Provider::name);
    if (found == providers().end()) {
        throw InputError("provider: found \"" + name + "\", expected " +
                         list(providers(), [](const Provider& one) { return one.name; }));
    }
    return *found;
}

namespace {

const Precision& choose_precision(const Provider& provider, const std::string& wanted) {
    if (std::ranges::find(kPrecisions, wanted) == kPrecisions.end()) {
        throw InputError("precision: found \"" + wanted + "\", expected " +
                         list(kPrecisions, [](std::string_view name) { return std::string(name); }));
    }
    if (wanted == "auto") return provider.precisions.front();
    const auto found = std::ranges::find(provider.precisions, wanted, &Precision::name);
    if (found == provider.precisions.end()) {
        throw MissingRuntime("precision " + wanted + ": onnxruntime's " + provider.name +
                             " provider computes a bundle's graphs in " +
                             list(provider.precisions, [](const Precision& one) { return one.name; }) +
                             " only; ask for that, or for another backend");
    }
    return *found;
}

void check_options(const Provider& provider, const NetworkOptions& options) {
    if (provider.name == "cpu" && (!options.provider_options.empty() || options.stream != nullptr)) {
        throw InputError("provider options: found some, expected none: provider cpu has no options and no stream");
    }
    for (const auto& [key, value] : options.provider_options) {
        if (std::ranges::find(kReserved, key) != kReserved.end()) {
            std::string line = "provider option " + key;
            line += ": found " + value;
            throw InputError(line += ", expected none: device and precision say this");
        }
    }
}

}  // namespace

Target decide(const NetworkOptions& options) {
    const Place place = place_of(options.device);
    const Provider& provider = known(options.provider.empty() ? place.kind : options.provider);
    if (provider.device != place.kind) {
        throw InputError("provider " + provider.name + ": found device " + options.device + ", expected " +
                         provider.device);
    }
    check_options(provider, options);
    const Precision& precision = choose_precision(provider, options.precision);
    Target target;
    target.provider = provider.name;
    target.device = place.name();
    target.index = place.index;
    target.precision = precision.name;
    target.is_typed = precision.is_typed;
    target.options = options.provider_options;
    target.options.insert(precision.options.begin(), precision.options.end());
    if (provider.name == "cuda") target.options.try_emplace(kSearch, kUsualSearch);
    target.stream = options.stream;
    // What was bound when the provider recorded must be bound when it replays: only the sampler's own memory is.
    if (options.replayed && options.stream != nullptr && provider.records != nullptr) {
        target.records = target.options.try_emplace(provider.records, "1").first->second == "1";
    } else if (provider.records != nullptr) {
        target.options.erase(provider.records);
    }
    return target;
}

std::vector<std::string> precisions_of(const std::string& device) {
    const Provider& provider = known(place_of(device).kind);
    std::vector<std::string> names;
    for (const Precision& precision : provider.precisions) {
        if (!precision.is_typed || provider.device != "cpu")
            names.push_back(precision.name);  // conversions are not native
    }
    return names;
}

}  // namespace x2ct::onnxruntime
