// Whether a shared library is all there: the loader maps a truncated one and dies on its first touch of what is
// missing.
#pragma once

#include <string>

namespace x2ct {

/// What is wrong with the ELF file at `path`, in a few words; "" if the loader may have it. A file that can't be read,
/// or that is no 64-bit ELF file, is left for the loader to complain about.
std::string missing_part(const std::string& path);

}  // namespace x2ct
