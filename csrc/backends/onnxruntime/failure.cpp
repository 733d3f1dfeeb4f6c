#include "failure.h"

#include <sstream>

namespace x2ct::onnxruntime {

std::string one_line(const std::string& text) {
    std::istringstream words(text);
    std::string result, word;
    while (words >> word) {
        if (word.starts_with("/onnxruntime_src/")) continue;
        result += (result.empty() ? "" : " ") + word;
    }
    if (result.empty()) result = "unknown error";
    constexpr std::size_t kLongest = 400;
    return result.size() > kLongest ? result.substr(0, kLongest) + "..." : result;
}

void fail(const std::string& doing, const std::string& text) {
    const std::string line = "onnxruntime: " + doing + ": " + one_line(text);
    for (const char* words : {"bad_alloc", "out of memory", "Failed to allocate memory", "CUDA failure 2:"}) {
        if (text.find(words) != std::string::npos) throw OutOfMemory(line);
    }
    throw Error(line);
}

}  // namespace x2ct::onnxruntime
