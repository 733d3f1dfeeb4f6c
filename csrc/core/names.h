// What is said of a name that is not known: those that are, and the nearest.
#pragma once

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "x2ct/error.h"

namespace x2ct {

/// Letters to insert, delete or replace between two names (Levenshtein).
inline std::size_t distance(const std::string& a, const std::string& b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i + 1;
        for (std::size_t j = 0; j < b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
            diagonal = row[j + 1];
            row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
        }
    }
    return row.back();
}

/// The error about a name that is none of `known`, of which there is at least one.
inline InputError unknown(const std::string& what, const std::string& name, const std::vector<std::string>& known) {
    std::string list;
    for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
    const std::string shown = name.substr(0, 40);
    const std::string& nearest =
        *std::ranges::min_element(known, {}, [&](const std::string& one) { return distance(shown, one); });
    const bool is_near = 2 * distance(shown, nearest) <= std::max(shown.size(), nearest.size());
    return InputError(what + ": found \"" + shown + "\", expected one of " + list +
                      (is_near ? "; did you mean '" + nearest + "'?" : ""));
}

// A device's name, taken apart: the core and each backend are handed the text.

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
