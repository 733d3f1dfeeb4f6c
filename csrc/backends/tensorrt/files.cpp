#include "files.h"

#include <fstream>

#include "x2ct/error.h"

namespace x2ct::tensorrt {

std::optional<std::vector<char>> read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const std::streamoff end = file.tellg();
    if (!file || end < 0) return std::nullopt;
    std::vector<char> content(static_cast<std::size_t>(end));
    file.seekg(0);
    if (!file.read(content.data(), end)) return std::nullopt;
    return content;
}

void write_file(const std::string& path, const void* data, std::size_t bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
    file.close();
    if (!file) throw Error(path + ": output: not written: is the disk full?");
}

}  // namespace x2ct::tensorrt
