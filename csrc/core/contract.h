// What a denoiser must have: inputs "x" and "sigma" [N], conditions by name, output "denoised" of x's shape.
#pragma once

#include <string>

#include "x2ct/device.h"
#include "x2ct/error.h"
#include "x2ct/lift.h"
#include "x2ct/network.h"

namespace x2ct {

/// Throws InputError if the network's names or shapes don't fit, or if network and device don't share memory.
void check_denoiser(const Network& denoiser, const Device& device, const Shape& shape);

/// Throws InputError unless `name` is a condition of this shape.
void check_condition(const Network& denoiser, const std::string& name, const Shape& shape);

/// Throws InputError unless what was lifted is as large as the sampler's own grid makes it.
void check_lifted(const Lift::Output& output, const Buffer& values, const Shape& shape);

bool is_condition(const TensorInfo& input);
InputError missing_condition(const TensorInfo& input);

}  // namespace x2ct
