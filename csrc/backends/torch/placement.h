// Where an artefact runs and in what: the device and the precision that were asked for, decided. No types of PyTorch.
#pragma once

#include <string>
#include <vector>

#include "core/names.h"

namespace x2ct::torch {

/// What such a device computes in, what "auto" means first: an artefact of f32 as it is, and on a GPU rounded to tf32;
/// one whose inside was typed in bf16 or f16. The CPU takes the latter too, converting where it must.
std::vector<std::string> precisions_of(const std::string& kind);

/// "auto" decided. Throws InputError for a name that none knows, MissingRuntime for one that can't be had.
std::string choose_precision(const std::string& wanted, const Place& place);

}  // namespace x2ct::torch
