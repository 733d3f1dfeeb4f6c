// What PyTorch's exceptions say; see ../guard.h.
#pragma once

#include <array>
#include <exception>
#include <string>

#include "../guard.h"

namespace x2ct::torch {

struct Failures {
    static constexpr const char* kName = "torch";
    static constexpr std::array kOutOfMemory = {"bad_alloc", "out of memory", "can't allocate memory",
                                                "not enough memory"};
    /// On one line, without the backtrace that PyTorch puts behind it.
    static std::string text_of(const std::exception& error);
};

/// Runs work(); what it throws leaves as one of x2ct's exceptions.
template <typename Work>
auto guarded(const std::string& doing, const Work& work) -> decltype(work()) {
    return x2ct::guarded<Failures>(doing, work);
}

}  // namespace x2ct::torch
