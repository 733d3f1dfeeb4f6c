// From an ONNX file to a plan.
#pragma once

#include "x2ct/plan.h"

namespace x2ct::tensorrt {

/// Writes a plan: a strongly typed network, one profile. Throws InputError for a file or an option that is wrong,
/// MissingRuntime, OutOfMemory, Cancelled, Error.
void build_plan(const PlanOptions& options);

}  // namespace x2ct::tensorrt
