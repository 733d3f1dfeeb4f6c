#include "x2ct/engines.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "x2ct/error.h"

namespace x2ct {
namespace {

using Files = std::map<std::string, std::string>;

constexpr const char* kMakes = "; x2ct build and x2ct export make them";

std::string stem_of(const Graph& graph) { return std::filesystem::path(graph.file).stem().string(); }

// Each graph's file in the folder; none unless all are there.
Files files_in(const std::string& folder, const Bundle& bundle, const std::string& suffix) {
    Files files;
    for (const Graph* const graph : {&bundle.encoder, &bundle.lift, &bundle.denoiser}) {
        const auto path = std::filesystem::path(folder) / (stem_of(*graph) + suffix);
        std::error_code error;
        if (!std::filesystem::is_regular_file(path, error)) return {};
        files[graph->file] = path.string();
    }
    return files;
}

std::vector<std::string> suffixes(const std::string& backend, const std::string& provider) {
    if (backend == "tensorrt") return {".plan"};
    if (provider == "aoti") return {".pt2"};
    if (provider == "torchscript") return {".pt"};
    if (provider.empty()) return {".pt2", ".pt"};
    throw InputError("provider: found \"" + provider + "\" for torch, expected torchscript or aoti");
}

}  // namespace

void use_engines(PipelineOptions& options, const Bundle& bundle, const std::string& backend, const std::string& folder,
                 bool trust) {
    const bool typed = backend == "onnxruntime" && (options.precision == "bf16" || options.precision == "f16");
    const bool is_code = backend == "tensorrt" || backend == "torch";
    if (folder.empty()) {
        if (is_code) throw InputError("engines: found no folder, expected that of " + backend + "'s engines" + kMakes);
        return;
    }
    if (typed) {
        const auto path =
            std::filesystem::path(folder) / (stem_of(bundle.denoiser) + "." + options.precision + ".onnx");
        options.engines[bundle.denoiser.file] = path.string();
        return;
    }
    if (!is_code) {
        throw InputError("engines: found a folder for backend " + backend +
                         ", expected one for tensorrt, torch, or onnxruntime in bf16 or f16");
    }
    if (!trust) {
        throw InputError(
            "engines: found a folder without trust, expected trust: compiled engines are code, and do what "
            "their maker wants");
    }
    for (const std::string& suffix : suffixes(backend, options.provider)) {
        options.engines = files_in(folder, bundle, suffix);
        if (!options.engines.empty()) break;
    }
    if (options.engines.empty()) {
        throw MissingRuntime("engines: found none of model " + bundle.name + " for " + backend + " in " + folder +
                             kMakes);
    }
    if (backend == "torch") options.provider.clear();  // the file says what it is
}

}  // namespace x2ct
