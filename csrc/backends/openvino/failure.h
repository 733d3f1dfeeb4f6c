// What OpenVINO's exceptions say; see ../guard.h.
#pragma once

#include <array>
#include <exception>
#include <string>

#include "../guard.h"

namespace x2ct::openvino {

struct Failures {
    static constexpr const char* kName = "openvino";
    static constexpr std::array kOutOfMemory = {"bad_alloc", "out of memory", "Cannot allocate memory",
                                                "could not allocate"};
    /// On one line, without the source locations that OpenVINO puts before it.
    static std::string text_of(const std::exception& error);
};

/// Runs work(); what it throws leaves as one of x2ct's exceptions.
template <typename Work>
auto guarded(const std::string& doing, const Work& work) -> decltype(work()) {
    return x2ct::guarded<Failures>(doing, work);
}

}  // namespace x2ct::openvino
