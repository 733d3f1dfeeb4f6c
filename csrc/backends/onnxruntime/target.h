// What a network is to run on, decided before the runtime is asked: which execution providers there are, what each
// computes in, and which options it gets. No types of the runtime in here.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "x2ct/network.h"

namespace x2ct::onnxruntime {

using Options = std::map<std::string, std::string>;

struct Precision {
    std::string name;
    Options options;        ///< that make the provider compute in it
    bool is_typed = false;  ///< that of a graph whose inside is typed so, which the provider computes as it stands
};

struct Provider {
    std::string name;
    std::string device;
    std::string full_name;              ///< the runtime's
    std::string install;                ///< where the runtime lacks it
    const char* records;                ///< its option to make a CUDA graph of what it does
    std::vector<Precision> precisions;  ///< fastest first, but for those that only "auto" must not choose
};

/// "cpu", "cuda" or "tensorrt". Throws InputError for another name.
const Provider& known(const std::string& name);

/// How the CUDA provider finds a convolution's kernel: by cuDNN's rules, not by timing all that there are, which takes
/// seconds and may end otherwise each time, so that two samplers would differ in the last bits. An option says
/// otherwise.
inline constexpr const char *kSearch = "cudnn_conv_algo_search", *kUsualSearch = "HEURISTIC";

/// What a network is to run on, after device, provider and precision have been checked against each other.
struct Target {
    std::string provider;  ///< "cpu", "cuda", "tensorrt"
    std::string device;    ///< "cpu", "cuda:0"
    int index = 0;         ///< of the device
    std::string precision;
    bool is_typed = false;  ///< the graph itself is in this precision
    Options options;
    void* stream = nullptr;
    bool records = false;  ///< the provider makes a CUDA graph of what it does, and replays it

    bool is_cpu() const { return provider == "cpu"; }
};

/// Throws InputError for what no release knows or what doesn't go together, MissingRuntime for a precision that the
/// provider doesn't compute in.
Target decide(const NetworkOptions& options);

/// What the device's own provider computes in, fastest first.
std::vector<std::string> precisions_of(const std::string& device);

}  // namespace x2ct::onnxruntime
