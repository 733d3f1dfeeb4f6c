#include "failure.h"

#include <sstream>

namespace x2ct::openvino {

std::string one_line(const std::string& text) {
    std::istringstream lines(text);
    std::string result, line;
    while (std::getline(lines, line)) {
        const bool is_place = line.starts_with("Exception from ") || line.find(" failed at ") != std::string::npos;
        if (line.empty() || is_place) continue;
        result += (result.empty() ? "" : " ") + line;
    }
    if (result.empty()) result = "unknown error";
    constexpr std::size_t kLongest = 400;
    return result.size() > kLongest ? result.substr(0, kLongest) + "..." : result;
}

void fail(const std::string& doing, const std::string& text) {
    const std::string line = "openvino: " + doing + ": " + one_line(text);
    for (const char* words : {"bad_alloc", "out of memory", "Cannot allocate memory", "could not allocate"}) {
        if (text.find(words) != std::string::npos) throw OutOfMemory(line);
    }
    throw Error(line);
}

}  // namespace x2ct::openvino
