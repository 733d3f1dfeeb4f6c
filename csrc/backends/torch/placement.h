// Where an artefact runs and in what: the device and the precision that were asked for, decided. No types of PyTorch.
#pragma once

#include <string>
#include <vector>

#include "core/place.h"

namespace x2ct::torch {

/// What a float32 artefact can be computed in on such a device, fastest first.
std::vector<std::string> precisions_of(const std::string& kind);

/// "auto" decided. Throws InputError for a name that none knows, MissingRuntime for one that can't be had.
std::string choose_precision(const std::string& wanted, const Place& place);

}  // namespace x2ct::torch
