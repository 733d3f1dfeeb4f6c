// Whole files.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace x2ct::tensorrt {

/// What is in a file; none where it can't be read.
std::optional<std::vector<char>> read_file(const std::string& path);

/// Throws Error.
void write_file(const std::string& path, const void* data, std::size_t bytes);

}  // namespace x2ct::tensorrt
