// A device's name, taken apart: the core and each backend are handed the text.
#pragma once

#include <algorithm>
#include <string>

#include "x2ct/error.h"

namespace x2ct {

/// "cpu" or "cuda", and which one.
struct Place {
    std::string kind;
    int index = 0;

    bool is_cpu() const { return kind == "cpu"; }
    std::string name() const { return is_cpu() ? kind : kind + ":" + std::to_string(index); }
};

/// "cuda:1" -> "cuda" and 1; "cuda" is "cuda:0". Throws InputError for what is no device's name.
inline Place place_of(const std::string& device) {
    const std::size_t colon = device.find(':');
    const std::string kind = device.substr(0, colon);
    const std::string index = colon == std::string::npos ? "0" : device.substr(colon + 1);
    const bool number = !index.empty() && index.size() < 4 &&
                        std::ranges::all_of(index, [](char digit) { return digit >= '0' && digit <= '9'; });
    if ((kind != "cpu" && kind != "cuda") || !number || (kind == "cpu" && colon != std::string::npos)) {
        throw InputError("device: found \"" + device + "\", expected cpu, cuda or cuda:N");
    }
    return {kind, std::stoi(index)};
}

}  // namespace x2ct
