// The schema of a bundle's model.json. The counterpart of x2ct/bundle/manifest.py.
#pragma once

#include <string>
#include <string_view>

#include "x2ct/bundle.h"

namespace x2ct {

inline constexpr std::int64_t kMostFileBytes = (std::int64_t{2} << 30) - 1;  // protobuf's own limit of one message

/// The content of model.json, checked field by field; `source` is how messages name it. Throws InputError.
Bundle read_manifest(const std::string& source, std::string_view text);

}  // namespace x2ct
