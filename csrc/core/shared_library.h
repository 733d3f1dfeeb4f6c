// Opening shared libraries: a runtime's, a backend's, a device's.
#pragma once

#include <string>

namespace x2ct {

/// An opened library, or why it can't be opened, in a few words.
struct SharedLibrary {
    void* handle = nullptr;
    std::string flaw;

    /// The address of what it exports by this name, or null.
    void* symbol(const char* name) const;
};

/// Never closed: a library with threads and static objects of its own does not survive it.
SharedLibrary open_library(const std::string& path);

}  // namespace x2ct
