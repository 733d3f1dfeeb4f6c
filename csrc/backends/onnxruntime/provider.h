// Execution providers: which there are, what each computes in, and how a session comes to use one.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <map>
#include <string>
#include <vector>

#include "x2ct/network.h"

namespace x2ct::onnxruntime {

/// What a network is to run on, after device, provider and precision have been checked against each other.
struct Target {
    std::string provider;  ///< "cpu", "cuda", "tensorrt"
    std::string device;    ///< "cpu", "cuda:0"
    int index = 0;         ///< of the device
    std::string precision;
    bool is_typed = false;  ///< the graph itself is in this precision
    std::map<std::string, std::string> options;
    void* stream = nullptr;
    bool records = false;  ///< the provider makes a CUDA graph of what it does, and replays it

    bool is_cpu() const { return provider == "cpu"; }
};

/// Throws InputError for what no release knows or what doesn't go together, MissingRuntime for what isn't here.
Target choose(const NetworkOptions& options);

/// Makes sessions with these options use the target's provider. Throws Ort::Exception, MissingRuntime.
void append(Ort::SessionOptions& options, const Target& target);

/// Where the target's tensors lie.
Ort::MemoryInfo memory_of(const Target& target);

/// Why the runtime can't drive the provider, or "".
std::string flaw_of_provider(const std::string& provider);

/// What the device's own provider computes in, fastest first.
std::vector<std::string> precisions_of(const std::string& device);

}  // namespace x2ct::onnxruntime
