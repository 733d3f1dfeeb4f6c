// Convolutions in 8 bits.
#pragma once

#include <openvino/openvino.hpp>

#include "x2ct/network.h"

namespace x2ct::openvino {

/// Rounds what the convolutions that the options name are given, and their weights, to 8 bits: activations to 256
/// values of their range, one of them 0; weights to 255 values about 0, a range for each channel that comes out.
/// OpenVINO then computes them in integers. Throws InputError where a name is no convolution's.
void quantise(ov::Model& model, const NetworkOptions& options);

/// Throws MissingRuntime unless each of them runs in 8 bits, by the compiled model's own word.
void check_quantised(const ov::Model& runtime, const NetworkOptions& options);

}  // namespace x2ct::openvino
