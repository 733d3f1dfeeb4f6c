// The border between C++ and C: exceptions become a status and a text, options are taken whole or refused.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "x2ct/error.h"
#include "x2ct/x2ct.h"

namespace x2ct::capi {

/// This thread's latest failure.
inline std::string& last_error() {
    thread_local std::string text;
    return text;
}

inline x2ct_status fail(x2ct_status status, const char* text) noexcept {
    try {
        last_error() = text;
    } catch (const std::bad_alloc&) {
        last_error().clear();  // no memory left for the reason; the status says it
    }
    return status;
}

/// Runs work(); what it throws becomes a status.
template <typename Work>
x2ct_status guarded(const Work& work) noexcept {
    last_error().clear();
    try {
        work();
        return X2CT_OK;
    } catch (const Error& error) {
        return fail(static_cast<x2ct_status>(error.exit_code()), error.what());
    } catch (const std::bad_alloc&) {
        return fail(X2CT_OUT_OF_MEMORY, "out of memory on the host");
    } catch (const std::exception& error) {
        return fail(X2CT_FAILED, error.what());
    } catch (...) {
        return fail(X2CT_FAILED, "an exception of unknown type");
    }
}

template <typename Pointer>
Pointer needed(Pointer pointer, const char* name) {
    if (pointer == nullptr) throw InputError(std::string(name) + ": found NULL, expected an address");
    return pointer;
}

/// Fills the caller's struct, which may be an older and shorter one, with what it has of the defaults.
template <typename Options>
void init(Options* options, std::size_t size, std::uint32_t abi, std::size_t least, Options defaults) {
    needed(options, "options");
    if (size >= sizeof(std::size_t)) std::memset(options, 0, std::min(size, sizeof(Options)));
    if (abi != X2CT_ABI) {
        throw InputError("abi: found a program built with " + std::to_string(abi) + ", expected " +
                         std::to_string(X2CT_ABI) + "; build it with this library's x2ct.h");
    }
    if (size < least || size > sizeof(Options)) {
        throw InputError("struct_size: found " + std::to_string(size) + ", expected " + std::to_string(least) + " to " +
                         std::to_string(sizeof(Options)) + "; the program's x2ct.h is newer than the library");
    }
    defaults.struct_size = size;
    std::memcpy(options, &defaults, size);
}

/// The caller's options, with defaults for what an older and shorter struct lacks.
template <typename Options>
Options taken(const Options* given, std::size_t least, Options defaults) {
    std::size_t size = 0;
    std::memcpy(&size, needed(given, "options"), sizeof size);
    if (size < least || size > sizeof(Options)) {
        throw InputError("options: struct_size: found " + std::to_string(size) +
                         ", expected what the init function sets; call it first");
    }
    std::memcpy(&defaults, given, size);
    return defaults;
}

inline std::string text_or(const char* text, const char* otherwise) { return text == nullptr ? otherwise : text; }

}  // namespace x2ct::capi
