// What ONNX Runtime's exceptions say; see ../guard.h.
#pragma once

#include <array>
#include <exception>
#include <string>

#include "../guard.h"

namespace x2ct::onnxruntime {

struct Failures {
    static constexpr const char* kName = "onnxruntime";
    static constexpr std::array kOutOfMemory = {"bad_alloc", "out of memory", "Failed to allocate memory",
                                                "CUDA failure 2:"};
    /// On one line, without the source locations that ONNX Runtime puts into it.
    static std::string text_of(const std::exception& error);
};

/// Runs work(); what it throws leaves as one of x2ct's exceptions.
template <typename Work>
auto guarded(const std::string& doing, const Work& work) -> decltype(work()) {
    return x2ct::guarded<Failures>(doing, work);
}

}  // namespace x2ct::onnxruntime
