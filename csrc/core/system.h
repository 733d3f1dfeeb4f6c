// Opening shared libraries: a runtime's, a backend's, a device's.
#pragma once

#include <cstdint>
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

// Whether a shared library is all there: the loader maps a truncated one and dies on its first touch of what is
// missing.

/// What is wrong with the ELF file at `path`, in a few words; "" if the loader may have it. A file that can't be read,
/// or that is no 64-bit ELF file, is left for the loader to complain about.
std::string missing_part(const std::string& path);

// What this machine has free.

/// Bytes that can be had without swapping, as Linux tells it; 0 elsewhere.
std::int64_t available_bytes();

}  // namespace x2ct
