#include "core/system.h"

#include <dlfcn.h>
#include <elf.h>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace x2ct {

std::string missing_part(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const auto end = static_cast<std::int64_t>(file.tellg());
    if (!file || end < 0) return "";
    const auto size = static_cast<std::uint64_t>(end);
    Elf64_Ehdr header{};
    file.seekg(0);
    if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return "";
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64) return "";
    const auto fits = [size](std::uint64_t offset, std::uint64_t length) {
        return offset <= size && length <= size - offset;
    };
    std::string truncated = "it is truncated at " + std::to_string(size) + " bytes";
    const std::uint64_t table = std::uint64_t{header.e_phnum} * sizeof(Elf64_Phdr);
    if (header.e_phentsize != sizeof(Elf64_Phdr) || !fits(header.e_phoff, table)) return truncated;
    std::vector<Elf64_Phdr> segments(header.e_phnum);
    file.seekg(static_cast<std::streamoff>(header.e_phoff));
    if (!file.read(reinterpret_cast<char*>(segments.data()), static_cast<std::streamsize>(table))) return truncated;
    for (const Elf64_Phdr& segment : segments) {
        if (segment.p_type == PT_LOAD && !fits(segment.p_offset, segment.p_filesz)) return truncated;
    }
    return "";
}

void* SharedLibrary::symbol(const char* name) const { return dlsym(handle, name); }

SharedLibrary open_library(const std::string& path) {
    if (const std::string wrong = missing_part(path); !wrong.empty()) return {nullptr, path + ": " + wrong};
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) return {handle, ""};
    const char* const text = dlerror();
    return {nullptr, std::string("can't be opened: ") + (text == nullptr ? "unknown error" : text)};
}

std::int64_t available_bytes() {
    std::ifstream lines("/proc/meminfo");
    std::string field, unit;
    std::int64_t kib = 0;
    while (lines >> field >> kib) {
        if (field == "MemAvailable:") return kib * 1024;
        std::getline(lines, unit);
    }
    return 0;
}

}  // namespace x2ct
