// PyTorch's exceptions become ours at the library's door: they must not leave it, as no one else knows their type.
#pragma once

#include <exception>
#include <new>
#include <string>

#include "x2ct/error.h"

namespace x2ct::torch {

/// An exception's text on one line, without the backtrace that PyTorch puts behind it.
std::string text_of(const std::exception& error);

/// Throws what a failure while `doing` is: OutOfMemory if that is what its text says, else Error.
[[noreturn]] void fail(const std::string& doing, const std::exception& error);

/// Runs work(); what it throws leaves as one of x2ct's exceptions.
template <typename Work>
auto guarded(const std::string& doing, const Work& work) -> decltype(work()) {
    try {
        return work();
    } catch (const Error&) {
        throw;
    } catch (const std::bad_alloc&) {
        throw OutOfMemory("torch: " + doing + ": out of memory");
    } catch (const std::exception& error) {
        fail(doing, error);
    }
}

}  // namespace x2ct::torch
