#include "core/shared_library.h"

#include <dlfcn.h>

#include "core/elf.h"

namespace x2ct {

void* SharedLibrary::symbol(const char* name) const { return dlsym(handle, name); }

SharedLibrary open_library(const std::string& path) {
    if (const std::string wrong = missing_part(path); !wrong.empty()) return {nullptr, path + ": " + wrong};
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) return {handle, ""};
    const char* const text = dlerror();
    return {nullptr, std::string("can't be opened: ") + (text == nullptr ? "unknown error" : text)};
}

}  // namespace x2ct
