#include "failure.h"

#include <algorithm>
#include <utility>

namespace x2ct::tensorrt {

void check(cudaError_t result, const std::string& doing) {
    if (result == cudaSuccess) return;
    (void)cudaGetLastError();  // it is told here and must not be met again by the next call
    const std::string line = "tensorrt: " + doing + ": CUDA: " + one_line(cudaGetErrorString(result));
    if (result == cudaErrorMemoryAllocation) throw OutOfMemory(line);
    throw Error(line);
}

void Errors::raise(const std::string& doing) {
    std::vector<Entry> entries;
    {
        const std::lock_guard lock(mutex_);
        entries = std::exchange(entries_, {});
    }
    std::string line = "tensorrt: " + doing + ": ";
    line += entries.empty() ? "it failed without saying why" : one_line(entries.front().text);
    const bool memory = std::ranges::any_of(entries, [](const Entry& one) {
        return one.code == nvinfer1::ErrorCode::kFAILED_ALLOCATION ||
               one.text.find("out of memory") != std::string::npos || one.text.find("OutOfMemory") != std::string::npos;
    });
    if (memory) throw OutOfMemory(line);
    throw Error(line);
}

std::int32_t Errors::getNbErrors() const noexcept {
    const std::lock_guard lock(mutex_);
    return static_cast<std::int32_t>(entries_.size());
}

nvinfer1::ErrorCode Errors::getErrorCode(std::int32_t index) const noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = static_cast<std::size_t>(index);
    return index < 0 || at >= entries_.size() ? nvinfer1::ErrorCode::kINVALID_ARGUMENT : entries_[at].code;
}

nvinfer1::IErrorRecorder::ErrorDesc Errors::getErrorDesc(std::int32_t index) const noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = static_cast<std::size_t>(index);
    return index < 0 || at >= entries_.size() ? "" : entries_[at].text.c_str();
}

void Errors::clear() noexcept {
    const std::lock_guard lock(mutex_);
    entries_.clear();
}

bool Errors::reportError(nvinfer1::ErrorCode code, ErrorDesc text) noexcept {
    constexpr std::size_t kMost = 16;
    try {
        const std::lock_guard lock(mutex_);
        if (entries_.size() < kMost) entries_.push_back({code, text == nullptr ? "" : text});
    } catch (...) {  // nothing may leave here, and one error less is told
        return false;
    }
    return false;  // not fatal: the call that failed says so itself
}

}  // namespace x2ct::tensorrt
