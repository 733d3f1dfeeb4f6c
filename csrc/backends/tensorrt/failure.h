// What TensorRT and CUDA say when something fails becomes our exceptions: one line, and out of memory as such.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string>
#include <vector>

#include "../guard.h"

namespace x2ct::tensorrt {

/// Throws what a CUDA call's result is: nothing for success, OutOfMemory, or Error.
void check(cudaError_t result, const std::string& doing);

/// Keeps the first errors that TensorRT reports on an object, and on what is made from it.
class Errors : public nvinfer1::IErrorRecorder {
  public:
    /// Throws what a failure while `doing` is, with what has been reported, and forgets it.
    [[noreturn]] void raise(const std::string& doing);

    std::int32_t getNbErrors() const noexcept override;
    nvinfer1::ErrorCode getErrorCode(std::int32_t index) const noexcept override;
    ErrorDesc getErrorDesc(std::int32_t index) const noexcept override;
    bool hasOverflowed() const noexcept override { return false; }
    void clear() noexcept override;
    bool reportError(nvinfer1::ErrorCode code, ErrorDesc text) noexcept override;
    // Whoever holds TensorRT's objects holds their recorder; the count is for TensorRT alone.
    RefCount incRefCount() noexcept override { return ++references_; }
    RefCount decRefCount() noexcept override { return --references_; }

  private:
    struct Entry {
        nvinfer1::ErrorCode code;
        std::string text;
    };
    mutable std::mutex mutex_;
    std::vector<Entry> entries_;
    std::atomic<RefCount> references_ = 0;
};

/// TensorRT throws nothing; what C++'s library throws on the way is told as it stands.
struct Failures {
    static constexpr const char* kName = "tensorrt";
    static constexpr std::array kOutOfMemory = {"bad_alloc", "out of memory"};
    static std::string text_of(const std::exception& error) { return one_line(error.what()); }
};

/// Runs work(); what it throws leaves as one of x2ct's exceptions.
template <typename Work>
auto guarded(const std::string& doing, const Work& work) -> decltype(work()) {
    return x2ct::guarded<Failures>(doing, work);
}

}  // namespace x2ct::tensorrt
