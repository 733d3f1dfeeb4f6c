#include "core/fields.h"

#include <algorithm>
#include <cstdio>
#include <string_view>

#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr std::size_t kShown = 60;         // characters of a wrong value that a message repeats
constexpr int kDeepest = 256;              // lists and objects in each other
constexpr std::size_t kMostFields = 4096;  // of one object: looking a field up goes through all of them

std::string brief(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

bool is_alphanumeric(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

// How many bytes the character at the start of `text` has; 0 if they are no character.
std::size_t character(std::string_view text) {
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
    const unsigned char first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t size = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (size == 0 || size > text.size()) return 0;
    for (std::size_t at = 1; at < size; ++at) {
        if ((byte(at) & 0xC0) != 0x80) return 0;
    }
    const bool overlong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
    const bool no_character = (first == 0xED && byte(1) > 0x9F) || (first == 0xF4 && byte(1) > 0x8F);
    return overlong || no_character ? 0 : size;
}

// What a file holds may be anything: line ends become blanks, and what no terminal should get becomes '?'.
std::string one_line(std::string_view text) {
    std::string line;
    while (!text.empty()) {
        const std::size_t size = character(text);
        const auto first = static_cast<unsigned char>(text[0]);
        const bool is_control =
            first < 0x20 || first == 0x7F || (first == 0xC2 && size == 2 && (text[1] & 0xE0) == 0x80);
        if (first == '\n' || first == '\r' || first == '\t') {
            line += ' ';
        } else if (size == 0 || is_control) {
            line += '?';
        } else {
            line += text.substr(0, size);
        }
        text.remove_prefix(std::max<std::size_t>(size, 1));
    }
    return line;
}

// Where in `text` it stops being JSON, after `at` characters.
std::string syntax_error(std::string_view text, std::size_t at) {
    if (at == 0 || at > text.size()) return "the end of the file";
    return "a syntax error at " + std::string(text.substr(at - 1, 20));
}

std::string whole_from(std::int64_t low, std::int64_t high) {
    return "a whole number from " + std::to_string(low) + " to " + std::to_string(high);
}

std::string number_from(double low, double high) { return "a number from " + brief(low) + " to " + brief(high); }

std::string list_of(std::size_t least, std::size_t most) {
    return "a list of " + std::to_string(least) + (most != least ? " to " + std::to_string(most) : "");
}

}  // namespace

void refuse(const std::string& source, const std::string& field, const std::string& found, const std::string& expected,
            const std::string& hint) {
    const std::string line = source + ": " + field + ": found " + found + ", expected " + expected;
    throw InputError(one_line(hint.empty() ? line : line + "; " + hint));
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t size = character(text);
        if (size == 0) return false;
        text.remove_prefix(size);
    }
    return true;
}

bool is_line(std::string_view text) {
    std::size_t count = 0;
    while (!text.empty()) {
        const std::size_t size = character(text);
        if (size == 0 || static_cast<unsigned char>(text[0]) < 0x20) return false;
        text.remove_prefix(size);
        ++count;
    }
    return count >= 1 && count <= 200;
}

bool is_word(std::string_view text, std::string_view others, std::size_t most) {
    if (text.empty() || text.size() > most || !is_alphanumeric(text[0])) return false;
    return std::ranges::all_of(text,
                               [&](char c) { return is_alphanumeric(c) || others.find(c) != std::string_view::npos; });
}

std::string shown(const Json& value) {
    std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    return text.size() <= kShown ? text : text.substr(0, kShown - 3) + "...";
}

Json parse_json(const std::string& source, std::string_view text) {
    std::vector<std::set<std::string>> seen;
    const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
        if (depth > kDeepest) refuse(source, "file", "lists or objects nested too deep", "JSON");
        if (event == Json::parse_event_t::object_start) {
            seen.emplace_back();
        } else if (event == Json::parse_event_t::object_end) {
            seen.pop_back();
        } else if (event == Json::parse_event_t::key) {
            if (!seen.back().insert(parsed.get<std::string>()).second) {
                refuse(source, "file", "the field " + shown(parsed) + " twice", "JSON");
            }
            if (seen.back().size() > kMostFields) {
                refuse(source, "file", "an object of more than " + std::to_string(kMostFields) + " fields", "JSON");
            }
        }
        return true;
    };
    try {
        return Json::parse(text.begin(), text.end(), watch);
    } catch (const Json::parse_error& error) {
        const auto end = text.begin() + static_cast<std::ptrdiff_t>(std::min(error.byte, text.size()));
        refuse(source, "line " + std::to_string(1 + std::count(text.begin(), end, '\n')),
               syntax_error(text, error.byte), "JSON");
    } catch (const Json::exception&) {
        refuse(source, "file", "a number that no float can hold", "JSON");
    }
}

Fields::Fields(std::string source, const Json& data, std::string path)
    : source_(std::move(source)), path_(std::move(path)), data_(&data) {
    if (!data.is_object()) refuse(source_, path_.empty() ? "file" : path_, shown(data), "an object");
}

void Fields::fail(const std::string& key, const std::string& found, const std::string& expected,
                  const std::string& hint) const {
    refuse(source_, where(key), found, expected, hint);
}

std::vector<std::string> Fields::keys() const {
    std::vector<std::string> names;
    for (const auto& item : data_->items()) names.push_back(item.key());
    return names;
}

const Json& Fields::raw(const std::string& key, const std::string& expected) {
    read_.insert(key);
    const auto found = data_->find(key);
    if (found == data_->end()) fail(key, "nothing", expected);
    return *found;
}

std::string Fields::text(const std::string& key, const std::string& expected, Accepts accepts) {
    const Json& value = raw(key, expected);
    if (!value.is_string() || !accepts(value.get_ref<const std::string&>())) fail(key, shown(value), expected);
    return value.get<std::string>();
}

std::int64_t Fields::as_integer(const std::string& key, const Json& value, std::int64_t low, std::int64_t high) const {
    // What doesn't fit 63 bits is read as unsigned or as a fraction, and is past every `high`.
    const bool whole =
        value.is_number_integer() && (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX);
    if (!whole || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high) {
        fail(key, shown(value), whole_from(low, high));
    }
    return value.get<std::int64_t>();
}

double Fields::as_number(const std::string& key, const Json& value, double low, double high) const {
    const double found = value.is_number() ? value.get<double>() : 0;
    if (!value.is_number() || !(low <= found && found <= high)) {
        fail(key, shown(value), number_from(low, high));
    }
    return found;
}

std::int64_t Fields::integer(const std::string& key, std::int64_t low, std::int64_t high) {
    return as_integer(key, raw(key, whole_from(low, high)), low, high);
}

double Fields::number(const std::string& key, double low, double high) {
    return as_number(key, raw(key, number_from(low, high)), low, high);
}

bool Fields::boolean(const std::string& key) {
    const Json& value = raw(key, "true or false");
    if (!value.is_boolean()) fail(key, shown(value), "true or false");
    return value.get<bool>();
}

const Json& Fields::list(const std::string& key, std::size_t least, std::size_t most) {
    const Json& value = raw(key, list_of(least, most));
    if (!value.is_array() || value.size() < least || value.size() > most) fail(key, shown(value), list_of(least, most));
    return value;
}

std::vector<std::int64_t> Fields::integers(const std::string& key, std::size_t count, std::int64_t low,
                                           std::int64_t high) {
    std::vector<std::int64_t> values;
    for (const Json& value : list(key, count, count)) values.push_back(as_integer(key, value, low, high));
    return values;
}

std::vector<double> Fields::numbers(const std::string& key, std::size_t least, std::size_t most, double low,
                                    double high) {
    std::vector<double> values;
    for (const Json& value : list(key, least, most)) values.push_back(as_number(key, value, low, high));
    return values;
}

Fields Fields::section(const std::string& key) { return {source_, raw(key, "an object"), where(key)}; }

std::vector<Fields> Fields::sections(const std::string& key, std::size_t least, std::size_t most) {
    std::vector<Fields> found;
    for (const Json& value : list(key, least, most)) {
        found.emplace_back(source_, value, where(key) + "[" + std::to_string(found.size()) + "]");
    }
    return found;
}

void Fields::close() const {
    for (const auto& item : data_->items()) {
        if (read_.contains(item.key())) continue;
        std::string known;
        for (const auto& name : read_) known += (known.empty() ? "" : ", ") + name;
        std::string name = shown(item.key());
        fail(name.substr(1, name.size() - 2), "a field", "only " + known);
    }
}

}  // namespace x2ct
