// backends/ holds one folder a backend, each built into a shared library of its own that alone knows its runtime's
// headers. This file opens them: first the runtime's library where the installed wheel has it, then ours, which names
// that library by its SONAME only (no path of the build environment is in it) and so finds it loaded.
#include <dlfcn.h>

#include <filesystem>
#include <memory>
#include <mutex>

#include "backends/elf.h"
#include "x2ct/backend.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

namespace fs = std::filesystem;

// What is known about a backend before it is opened. The build says which runtime it compiled against.
struct Recipe {
    const char* name;
    const char* runtime;  // the runtime library's file name, version included: it changes with each release
    const char* wanted;   // the version it belongs to
    const char* install;
};

#ifndef X2CT_OPENVINO_SONAME
#define X2CT_OPENVINO_SONAME ""
#define X2CT_OPENVINO_VERSION ""
#endif

constexpr Recipe kRecipes[] = {
    {"openvino", X2CT_OPENVINO_SONAME, X2CT_OPENVINO_VERSION, "pip install openvino==" X2CT_OPENVINO_VERSION},
};

const Recipe& recipe(const std::string& name) {
    std::string known;
    for (const Recipe& one : kRecipes) {
        if (name == one.name) return one;
        known += (known.empty() ? "" : ", ") + std::string(one.name);
    }
    throw InputError("backend: found \"" + name + "\", expected " + known);
}

// The runtime's library in the package's folder or its libs/; with no folder, wherever the dynamic loader looks.
std::string runtime_library(const Recipe& recipe, const std::string& folder) {
    if (folder.empty()) return recipe.runtime;
    std::string others;
    for (const fs::path& place : {fs::path(folder) / "libs", fs::path(folder)}) {
        std::error_code missing;
        if (fs::exists(place / recipe.runtime, missing)) return fs::absolute(place / recipe.runtime).string();
        const std::string stem = std::string("lib") + recipe.name + ".so.";
        for (const auto& entry : fs::directory_iterator(place, missing)) {
            const std::string file = entry.path().filename().string();
            if (file.starts_with(stem)) others += (others.empty() ? "" : ", ") + file;
        }
    }
    const std::string what =
        others.empty() ? "is not installed in " + folder : "is another version there (" + others + ")";
    throw MissingRuntime(std::string("backend ") + recipe.name + ": " + recipe.runtime + " " + what + "; " +
                         recipe.install);
}

std::string load_error() {
    const char* text = dlerror();
    return text == nullptr ? "unknown error" : text;
}

void* load(const std::string& path, const Recipe& recipe, const std::string& hint) {
    if (const std::string wrong = missing_part(path); !wrong.empty()) {
        throw MissingRuntime(std::string("backend ") + recipe.name + ": " + path + ": " + wrong + "; " + hint);
    }
    // Never closed: a runtime with threads and static objects of its own does not survive it.
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        throw MissingRuntime(std::string("backend ") + recipe.name + ": can't be opened: " + load_error() + "; " +
                             hint);
    }
    return library;
}

template <typename Function>
Function* symbol(void* library, const char* name, const Recipe& recipe) {
    auto* function = reinterpret_cast<Function*>(dlsym(library, name));
    if (function == nullptr) {
        throw MissingRuntime(std::string("backend ") + recipe.name + ": its library has no " + name +
                             "; reinstall x2ct");
    }
    return function;
}

Backend* open(const Recipe& recipe, const BackendPlace& place) {
    const fs::path ours = fs::path(place.library_dir) / (std::string("libx2ct_") + recipe.name + ".so");
    std::error_code missing;
    if (!fs::exists(ours, missing)) {
        throw MissingRuntime(std::string("backend ") + recipe.name + ": this build of x2ct has no " + ours.string() +
                             "; install x2ct with it");
    }
    load(runtime_library(recipe, place.runtime_dir), recipe, recipe.install);
    void* library = load(ours.string(), recipe, "reinstall x2ct");
    const std::uint32_t abi = symbol<BackendAbi>(library, "x2ct_backend_abi", recipe)();
    if (abi != kBackendAbi) {
        throw MissingRuntime(std::string("backend ") + recipe.name + ": interface version: found " +
                             std::to_string(abi) + ", expected " + std::to_string(kBackendAbi) + "; reinstall x2ct");
    }
    return symbol<BackendOpen>(library, "x2ct_backend_open", recipe)();
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

std::vector<BackendStatus> backend_status(const BackendPlace& place) {
    std::vector<BackendStatus> all;
    for (const Recipe& recipe : kRecipes) {
        BackendStatus status;
        status.name = recipe.name;
        status.version = recipe.wanted;
        try {
            const Backend& backend = open_backend(recipe.name, place);
            status.version = backend.version();
            status.devices = backend.devices();
            for (const auto& device : status.devices) status.precisions[device] = backend.precisions(device);
            status.available = true;
        } catch (const std::exception& error) {
            status.reason = error.what();
        }
        all.push_back(std::move(status));
    }
    return all;
}

}  // namespace x2ct
