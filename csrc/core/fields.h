// Reading JSON that may be wrong: every field is checked where it enters, every complaint names file and field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace x2ct {

using Json = nlohmann::ordered_json;  // fields keep the file's order

/// Throws InputError: "source: field: found ..., expected ...; hint", one line whatever the parts hold.
[[noreturn]] void refuse(const std::string& source, const std::string& field, const std::string& found,
                         const std::string& expected, const std::string& hint = "");

/// The JSON in `text`; NaN, infinities, repeated fields, deep nesting and objects of more than 4096 fields are refused.
/// Throws InputError naming `source`.
Json parse_json(const std::string& source, std::string_view text);

/// A value as a message repeats it: one line, short.
std::string shown(const Json& value);

/// Whether it is UTF-8, as Unicode defines it: no surrogates, nothing longer than needed.
bool is_utf8(std::string_view text);

/// 1 to 200 characters, none of them a control character.
bool is_line(std::string_view text);

/// Letters, digits and those in `others`; at most `most`, and the first a letter or digit.
bool is_word(std::string_view text, std::string_view others, std::size_t most);

/// One JSON object of a file, read field by field; `close` complains about a field that nobody read.
class Fields {
  public:
    using Accepts = bool (*)(std::string_view);

    /// `data` is kept by reference. Throws InputError if it is no object.
    Fields(std::string source, const Json& data, std::string path = "");

    const std::string& source() const { return source_; }
    const std::string& path() const { return path_; }
    bool has(const std::string& key) const { return data_->contains(key); }
    std::vector<std::string> keys() const;

    const Json& raw(const std::string& key, const std::string& expected);
    std::string text(const std::string& key, const std::string& expected, Accepts accepts = is_line);
    std::int64_t integer(const std::string& key, std::int64_t low, std::int64_t high);
    double number(const std::string& key, double low, double high);
    bool boolean(const std::string& key);
    std::vector<std::int64_t> integers(const std::string& key, std::size_t count, std::int64_t low, std::int64_t high);
    std::vector<double> numbers(const std::string& key, std::size_t least, std::size_t most, double low, double high);
    const Json& list(const std::string& key, std::size_t least, std::size_t most);
    Fields section(const std::string& key);
    std::vector<Fields> sections(const std::string& key, std::size_t least, std::size_t most);
    void close() const;

    /// A whole number of the field `key`, wherever in it it stands.
    std::int64_t as_integer(const std::string& key, const Json& value, std::int64_t low, std::int64_t high) const;
    double as_number(const std::string& key, const Json& value, double low, double high) const;

    [[noreturn]] void fail(const std::string& key, const std::string& found, const std::string& expected,
                           const std::string& hint = "") const;

  private:
    std::string where(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }

    std::string source_, path_;
    const Json* data_;
    std::set<std::string> read_;
};

}  // namespace x2ct
