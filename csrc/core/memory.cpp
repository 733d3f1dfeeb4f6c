#include "core/memory.h"

#include <fstream>
#include <string>

namespace x2ct {

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
