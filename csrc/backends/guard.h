// A runtime's exceptions become ours at its backend's door: they must not leave it, as no one else knows their type.
#pragma once

#include <exception>
#include <new>
#include <sstream>
#include <string>
#include <string_view>

#include "x2ct/error.h"

namespace x2ct {

/// A text on one line, and not too long.
inline std::string one_line(const std::string& text) {
    std::istringstream words(text);
    std::string line, word;
    while (words >> word) line += (line.empty() ? "" : " ") + word;
    if (line.empty()) return "unknown error";
    constexpr std::size_t kLongest = 400;
    return line.size() > kLongest ? line.substr(0, kLongest) + "..." : line;
}

/// Runs work(); what it throws leaves as one of x2ct's exceptions, which says what was being done. `Runtime` has the
/// runtime's name kName; text_of(exception), its text on one line without what is noise; and kOutOfMemory, the words
/// by which it says that memory ran out.
template <typename Runtime, typename Work>
auto guarded(const std::string& doing, const Work& work) -> decltype(work()) {
    const auto line = [&](const std::string& text) { return Runtime::kName + (": " + doing) + ": " + text; };
    try {
        return work();
    } catch (const Error&) {
        throw;
    } catch (const std::bad_alloc&) {
        throw OutOfMemory(line("out of memory"));
    } catch (const std::exception& error) {
        const std::string_view text = error.what();
        for (const std::string_view words : Runtime::kOutOfMemory) {
            if (text.find(words) != std::string_view::npos) throw OutOfMemory(line(Runtime::text_of(error)));
        }
        throw Error(line(Runtime::text_of(error)));
    }
}

}  // namespace x2ct
