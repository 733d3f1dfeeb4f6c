#include "failure.h"

#include <c10/util/Exception.h>

#include <sstream>

namespace x2ct::torch {

std::string text_of(const std::exception& error) {
    const auto* const own = dynamic_cast<const c10::Error*>(&error);
    std::istringstream words(own == nullptr ? error.what() : own->what_without_backtrace());
    std::string result, word;
    while (words >> word) result += (result.empty() ? "" : " ") + word;
    if (result.empty()) result = "unknown error";
    constexpr std::size_t kLongest = 400;
    return result.size() > kLongest ? result.substr(0, kLongest) + "..." : result;
}

void fail(const std::string& doing, const std::exception& error) {
    const std::string text = text_of(error);
    const std::string line = "torch: " + doing + ": " + text;
    for (const char* words : {"bad_alloc", "out of memory", "can't allocate memory", "not enough memory"}) {
        if (text.find(words) != std::string::npos) throw OutOfMemory(line);
    }
    throw Error(line);
}

}  // namespace x2ct::torch
