#include "runtime.h"

#include <dlfcn.h>

#include <cstdlib>

#include "x2ct/error.h"

namespace x2ct::onnxruntime {
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

}  // namespace x2ct::onnxruntime
