// The schema of a bundle's model.json, docs/bundle.md.
#pragma once

#include <string>
#include <string_view>

#include "x2ct/bundle.h"

namespace x2ct {

inline constexpr std::int64_t kMostFileBytes = (std::int64_t{2} << 30) - 1;  // protobuf's own limit of one message

/// Reads model.json, checked field by field; path and checksum stay empty. `source` is how messages name it.
/// Throws InputError.
OpenedBundle read_manifest(const std::string& source, std::string_view text);

}  // namespace x2ct
