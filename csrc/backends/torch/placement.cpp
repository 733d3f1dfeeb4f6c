#include "placement.h"

#include <algorithm>
#include <array>

#include "x2ct/error.h"

namespace x2ct::torch {

std::vector<std::string> precisions_of(const std::string& kind) {
    if (kind == "cuda") return {"tf32", "f32", "bf16", "f16"};
    return {"f32"};
}

std::string choose_precision(const std::string& wanted, const Place& place) {
    constexpr std::array<const char*, 6> kKnown = {"auto", "f32", "tf32", "bf16", "f16", "int8"};
    if (std::ranges::none_of(kKnown, [&](const char* name) { return wanted == name; })) {
        throw InputError("precision: found \"" + wanted + "\", expected auto, f32, tf32, bf16, f16, int8");
    }
    auto here = precisions_of(place.kind);
    if (wanted == "auto") return here.front();
    if (place.is_cpu()) here.insert(here.end(), {"bf16", "f16"});
    if (std::ranges::find(here, wanted) == here.end()) {
        std::string list;
        for (const std::string& one : here) list += (list.empty() ? "" : ", ") + one;
        throw MissingRuntime("precision " + wanted + ": torch computes on " + place.kind + " in " + list +
                             " only; ask for that, or for another backend");
    }
    return wanted;
}

}  // namespace x2ct::torch
