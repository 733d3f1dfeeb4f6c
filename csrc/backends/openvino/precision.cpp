#include "precision.h"

#include <algorithm>

#include "x2ct/error.h"

namespace x2ct::openvino {
namespace {

struct Name {
    const char* ours;
    const char* capability;  // OpenVINO's word for it
    ov::element::Type_t type;
};

// Fastest first. A CPU reports BF16 and FP16 only where it has instructions for them.
constexpr Name kNames[] = {
    {"bf16", "BF16", ov::element::Type_t::bf16},
    {"f32", "FP32", ov::element::Type_t::f32},
    {"tf32", "TF32", ov::element::Type_t::f32},  // a GPU's
    {"f16", "FP16", ov::element::Type_t::f16},
};

// Without these instructions sums of products of 8 bits are cut at 16, and nothing is gained.
bool multiplies_int8() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512vnni") != 0 || __builtin_cpu_supports("avxvnni") != 0;
#else
    return false;
#endif
}

std::string list(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

}  // namespace

std::string device_of(const std::string& name) {
    if (name == "cpu") return "CPU";
    throw MissingRuntime("device " + name + ": the openvino backend drives cpu only; use device cpu");
}

std::vector<std::string> native_precisions(ov::Core& core, const std::string& device) {
    const auto capabilities = core.get_property(device_of(device), ov::device::capabilities);
    std::vector<std::string> names;
    for (const Name& name : kNames) {
        if (std::ranges::find(capabilities, name.capability) != capabilities.end()) names.emplace_back(name.ours);
    }
    if (multiplies_int8() && std::ranges::find(capabilities, "INT8") != capabilities.end()) names.emplace_back("int8");
    return names;
}

ov::element::Type choose(const std::string& wanted, const std::vector<std::string>& native, const std::string& device) {
    const std::string& chosen = wanted == "auto" ? native.front() : wanted;
    if (chosen == "int8" && std::ranges::find(native, chosen) != native.end()) return choose("auto", native, device);
    const auto* known = std::ranges::find(kNames, chosen, [](const Name& name) { return std::string(name.ours); });
    if (known == std::end(kNames) && chosen != "int8") {
        throw InputError("precision: found \"" + wanted + "\", expected auto, f32, tf32, bf16, f16 or int8");
    }
    if (std::ranges::find(native, chosen) == native.end()) {
        throw MissingRuntime("precision " + chosen + ": device " + device + " has no instructions for it; it has " +
                             list(native));
    }
    return known->type;
}

std::string name_of(const ov::element::Type& type) { return type.get_type_name(); }

}  // namespace x2ct::openvino
