// backends/ holds one folder a backend, each built into a shared library of its own that alone knows its runtime's
// headers. This file opens them: first the runtime's library where the installed wheel has it, then ours, which carries
// no path of the build environment. OpenVINO's names its runtime by SONAME and so finds it loaded; ONNX Runtime and
// TensorRT are not linked at all: their backends ask the handle that they are given;
// PyTorch's libraries have the same names in every release, and say which one they are.
#include <filesystem>
#include <memory>
#include <mutex>

#include "core/system.h"
#include "x2ct/backend.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

namespace fs = std::filesystem;

#ifndef X2CT_OPENVINO_SONAME
#define X2CT_OPENVINO_SONAME ""
#define X2CT_OPENVINO_VERSION ""
#endif
#ifndef X2CT_ONNXRUNTIME_VERSION
#define X2CT_ONNXRUNTIME_VERSION ""
#endif
#ifndef X2CT_TENSORRT_MAJOR
#define X2CT_TENSORRT_MAJOR "10"
#endif
#ifndef X2CT_TORCH_VERSION
#define X2CT_TORCH_VERSION ""
#endif

// What is known about a backend before it is opened. The build says which runtime it compiled against.
struct Recipe {
    const char* name;
    const char* libs;     // where in its package the runtime keeps its libraries
    const char* stem;     // what the runtime library's file name starts with
    const char* runtime;  // the file name itself
    bool any_release;     // whether what follows `runtime` may be any release's number
    const char* wanted;   // the version it belongs to
    const char* install;
    const char* build;  // what a build without it lacked
    std::string (*release)(const SharedLibrary& library) =
        nullptr;  // asks the runtime, where its file name doesn't tell
};

// "2.13.0", as libtorch's interface of C functions tells it, which every release from 2.9 on has.
std::string torch_release(const SharedLibrary& library) {
    using AbiVersion = std::uint64_t();
    auto* const ask = reinterpret_cast<AbiVersion*>(library.symbol("aoti_torch_abi_version"));
    if (ask == nullptr) return "none";
    const auto part = [number = ask()](int shift) { return std::to_string((number >> shift) & 0xff); };
    return part(56) + "." + part(48) + "." + part(40);
}

constexpr Recipe kRecipes[] = {
    {"openvino", "libs", "libopenvino.so.", X2CT_OPENVINO_SONAME, false, X2CT_OPENVINO_VERSION,
     "pip install openvino==" X2CT_OPENVINO_VERSION, "build it with -DX2CT_OPENVINO=ON"},
    {"onnxruntime", "capi", "libonnxruntime.so.", "libonnxruntime.so.1", true, X2CT_ONNXRUNTIME_VERSION " or newer",
     "pip install 'onnxruntime>=" X2CT_ONNXRUNTIME_VERSION "'",
     "ONNX Runtime's headers were not found: build it with X2CT_ONNXRUNTIME_INCLUDE=FOLDER pip install ., or cmake "
     "-DX2CT_ONNXRUNTIME_INCLUDE=FOLDER"},
    {"tensorrt", "", "libnvinfer.so.", "libnvinfer.so." X2CT_TENSORRT_MAJOR, true, X2CT_TENSORRT_MAJOR ".x",
     "pip install 'tensorrt==" X2CT_TENSORRT_MAJOR ".*'",
     "TensorRT's headers were not found: build it with X2CT_TENSORRT_INCLUDE=FOLDER pip install ., or cmake "
     "-DX2CT_TENSORRT_INCLUDE=FOLDER"},
    {"torch", "lib", "libtorch_cpu.so", "libtorch_cpu.so", false, X2CT_TORCH_VERSION,
     "pip install torch==" X2CT_TORCH_VERSION,
     "PyTorch was not installed where it was built: install torch, then build with pip install --no-build-isolation",
     torch_release},
};

const Recipe& recipe(const std::string& name) {
    std::string known;
    for (const Recipe& one : kRecipes) {
        if (name == one.name) return one;
        known += (known.empty() ? "" : ", ") + std::string(one.name);
    }
    throw InputError("backend: found \"" + name + "\", expected " + known);
}

[[noreturn]] void missing(const Recipe& recipe, const std::string& why) {
    throw MissingRuntime(std::string("backend ") + recipe.name + ": " + why);
}

bool fits(const Recipe& recipe, const std::string& file) {
    return file == recipe.runtime || (recipe.any_release && file.starts_with(recipe.runtime + std::string(".")));
}

// The runtime's library at a place that may be it, its folder, or the package's folder.
std::string runtime_library(const Recipe& recipe, const std::string& place) {
    if (place.empty()) return recipe.runtime;
    std::error_code ignored;
    if (fs::is_regular_file(place, ignored)) return fs::absolute(place).string();
    std::string others;
    for (const fs::path& folder : {fs::path(place) / recipe.libs, fs::path(place)}) {
        for (const auto& entry : fs::directory_iterator(folder, ignored)) {
            const std::string file = entry.path().filename().string();
            if (fits(recipe, file)) return fs::absolute(entry.path()).string();
            if (file.starts_with(recipe.stem)) others += (others.empty() ? "" : ", ") + file;
        }
    }
    const std::string what =
        others.empty() ? "is not installed in " + place : "is another version there (" + others + ")";
    missing(recipe, std::string(recipe.runtime) + " " + what + "; " + recipe.install);
}

SharedLibrary load(const std::string& path, const Recipe& recipe, const std::string& hint) {
    SharedLibrary library = open_library(path);
    if (library.handle == nullptr) missing(recipe, library.flaw + "; " + hint);
    return library;
}

template <typename Function>
Function* symbol(const SharedLibrary& library, const char* name, const Recipe& recipe) {
    auto* function = reinterpret_cast<Function*>(library.symbol(name));
    if (function == nullptr) missing(recipe, std::string("its library has no ") + name + "; reinstall x2ct");
    return function;
}

fs::path library_of(const Recipe& recipe, const std::string& library_dir) {
    return fs::path(library_dir) / (std::string("libx2ct_") + recipe.name + ".so");
}

bool is_built(const Recipe& recipe, const std::string& library_dir) {
    std::error_code ignored;
    return fs::exists(library_of(recipe, library_dir), ignored);
}

Backend* open(const Recipe& recipe, const BackendPlace& place) {
    if (!is_built(recipe, place.library_dir)) {
        missing(recipe, "this build of x2ct has no " + library_of(recipe, place.library_dir).filename().string() +
                            "; " + recipe.build);
    }
    const SharedLibrary runtime = load(runtime_library(recipe, place.runtime_dir), recipe, recipe.install);
    if (recipe.release != nullptr) {
        const std::string found = recipe.release(runtime);
        if (found != recipe.wanted) {
            missing(recipe, "found version " + found + ", expected " + recipe.wanted + ", which it was built with; " +
                                recipe.install + ", or build x2ct again");
        }
    }
    const SharedLibrary library = load(library_of(recipe, place.library_dir).string(), recipe, "reinstall x2ct");
    const std::uint32_t abi = symbol<BackendAbi>(library, "x2ct_backend_abi", recipe)();
    if (abi != kBackendAbi) {
        missing(recipe, "interface version: found " + std::to_string(abi) + ", expected " +
                            std::to_string(kBackendAbi) + "; reinstall x2ct");
    }
    return symbol<BackendOpen>(library, "x2ct_backend_open", recipe)(runtime.handle);
}

BackendStatus status_of(const Recipe& recipe, const BackendPlace& place) {
    BackendStatus status;
    status.name = recipe.name;
    status.built = is_built(recipe, place.library_dir);
    if (status.built) status.version = recipe.wanted;
    try {
        // A pointer, for to GCC 14 a reference may be to the place's name.
        const Backend* const backend = &open_backend(recipe.name, place);
        status.version = backend->version();
        status.devices = backend->devices();
        for (const auto& device : status.devices) status.precisions[device] = backend->precisions(device);
        status.missing_devices = backend->missing_devices();
        status.available = true;
    } catch (const std::exception& error) {
        status.reason = error.what();
    }
    return status;
}

}  // namespace

Backend& open_backend(const std::string& name, const BackendPlace& place) {
    static std::mutex mutex;
    static std::map<std::string, Backend*>& opened = *new std::map<std::string, Backend*>();  // as long as the process
    const Recipe& known = recipe(name);
    const std::lock_guard lock(mutex);
    Backend*& backend = opened[name];
    if (backend == nullptr) backend = open(known, place);
    return *backend;
}

std::vector<BackendStatus> backend_status(const std::string& library_dir,
                                          const std::map<std::string, std::string>& runtime_dirs) {
    std::vector<BackendStatus> all;
    for (const Recipe& recipe : kRecipes) {
        const auto place = runtime_dirs.find(recipe.name);
        all.push_back(status_of(recipe, {library_dir, place == runtime_dirs.end() ? "" : place->second}));
    }
    return all;
}

}  // namespace x2ct
