#include <algorithm>
#include <memory>

#include "onnxruntime.h"
#include "x2ct/error.h"

namespace x2ct::onnxruntime {
namespace {

// The runtime's own words for a set of options, in its own memory.
template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

struct Pairs {
    explicit Pairs(const Options& options) {
        for (const auto& [key, value] : options) {
            keys.push_back(key.c_str());
            values.push_back(value.c_str());
        }
    }
    std::vector<const char*> keys, values;
};

void append_cuda(Ort::SessionOptions& options, Options asked, const Target& target) {
    const OrtApi& api = Ort::GetApi();
    asked["device_id"] = std::to_string(target.index);
    OrtCUDAProviderOptionsV2* made = nullptr;
    Ort::ThrowOnError(api.CreateCUDAProviderOptions(&made));
    const Owned<OrtCUDAProviderOptionsV2> cuda(made, api.ReleaseCUDAProviderOptions);
    const Pairs pairs(asked);
    Ort::ThrowOnError(api.UpdateCUDAProviderOptions(made, pairs.keys.data(), pairs.values.data(), pairs.keys.size()));
    if (target.stream != nullptr) {
        Ort::ThrowOnError(api.UpdateCUDAProviderOptionsWithValue(made, "user_compute_stream", target.stream));
    }
    options.AppendExecutionProvider_CUDA_V2(*made);
}

void append_tensorrt(Ort::SessionOptions& options, Options asked, const Target& target) {
    const OrtApi& api = Ort::GetApi();
    asked["device_id"] = std::to_string(target.index);
    OrtTensorRTProviderOptionsV2* made = nullptr;
    Ort::ThrowOnError(api.CreateTensorRTProviderOptions(&made));
    const Owned<OrtTensorRTProviderOptionsV2> tensorrt(made, api.ReleaseTensorRTProviderOptions);
    const Pairs pairs(asked);
    Ort::ThrowOnError(
        api.UpdateTensorRTProviderOptions(made, pairs.keys.data(), pairs.values.data(), pairs.keys.size()));
    if (target.stream != nullptr) {
        Ort::ThrowOnError(api.UpdateTensorRTProviderOptionsWithValue(made, "user_compute_stream", target.stream));
    }
    options.AppendExecutionProvider_TensorRT_V2(*made);
}

}  // namespace

Target choose(const NetworkOptions& options) {
    Target target = decide(options);
    const std::string flaw = flaw_of_provider(target.provider);
    if (!flaw.empty()) throw MissingRuntime("device " + options.device + ": " + flaw);
    return target;
}

void append(Ort::SessionOptions& options, const Target& target) {
    if (target.provider == "tensorrt") {
        append_tensorrt(options, target.options, target);
        // For what TensorRT does not take, in the precision that it has in any case.
        append_cuda(options, {{"use_tf32", "1"}, {kSearch, kUsualSearch}}, target);
    } else if (target.provider == "cuda") {
        append_cuda(options, target.options, target);
    }
}

Ort::MemoryInfo memory_of(const Target& target) {
    if (target.is_cpu()) return Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
    return {"Cuda", OrtDeviceAllocator, target.index, OrtMemTypeDefault};
}

std::string flaw_of_provider(const std::string& provider) {
    const Provider& wanted = known(provider);
    const auto there = Ort::GetAvailableProviders();
    if (std::ranges::find(there, wanted.full_name) == there.end()) {
        return "the installed onnxruntime " + version() + " has no " + wanted.full_name + "; " + wanted.install;
    }
    if (provider == "cpu") return "";
    // Compiled in is not usable: the provider is a library of its own, with its own needs.
    try {
        Ort::SessionOptions options;
        Target target;
        target.provider = provider;
        append(options, target);
    } catch (const Ort::Exception& error) {
        return "onnxruntime " + version() + " can't start its " + wanted.full_name + ": " + Failures::text_of(error);
    }
    return "";
}

}  // namespace x2ct::onnxruntime
