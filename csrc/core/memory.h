// What this machine has free.
#pragma once

#include <cstdint>

namespace x2ct {

/// Bytes that can be had without swapping, as Linux tells it; 0 elsewhere.
std::int64_t available_bytes();

}  // namespace x2ct
