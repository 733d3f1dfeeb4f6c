// SHA-256 (FIPS 180-4), for checksums of a bundle's files.
#pragma once

#include <string>
#include <string_view>

namespace x2ct {

/// The digest of `data`, 64 hexadecimal digits.
std::string sha256(std::string_view data);

}  // namespace x2ct
