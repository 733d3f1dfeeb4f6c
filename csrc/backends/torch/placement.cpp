#include "placement.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "x2ct/error.h"

namespace x2ct::torch {

Place place_of(const std::string& device) {
    const std::size_t colon = device.find(':');
    const std::string kind = device.substr(0, colon);
    const std::string index = colon == std::string::npos ? "0" : device.substr(colon + 1);
    const bool number = !index.empty() && index.size() < 4 &&
                        std::ranges::all_of(index, [](unsigned char c) { return std::isdigit(c) != 0; });
    if ((kind != "cpu" && kind != "cuda") || !number || (kind == "cpu" && colon != std::string::npos)) {
        throw InputError("device: found \"" + device + "\", expected cpu, cuda or cuda:N");
    }
    return {kind, std::stoi(index)};
}

std::vector<std::string> precisions_of(const std::string& kind) {
    if (kind == "cuda") return {"tf32", "f32"};
    return {"f32"};
}

std::string choose_precision(const std::string& wanted, const Place& place) {
    constexpr std::array<const char*, 5> kKnown = {"auto", "f32", "tf32", "bf16", "f16"};
    if (std::ranges::none_of(kKnown, [&](const char* name) { return wanted == name; })) {
        throw InputError("precision: found \"" + wanted + "\", expected auto, f32, tf32, bf16, f16");
    }
    const auto here = precisions_of(place.kind);
    if (wanted == "auto") return here.front();
    if (std::ranges::find(here, wanted) == here.end()) {
        std::string list;
        for (const std::string& one : here) list += (list.empty() ? "" : ", ") + one;
        throw MissingRuntime("precision " + wanted + ": torch computes an artefact's f32 on " + place.kind + " in " +
                             list + " only; ask for that, or for another backend");
    }
    return wanted;
}

}  // namespace x2ct::torch
