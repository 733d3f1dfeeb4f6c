// Shapes and names between TensorRT's words and ours.
#pragma once

#include <NvInferRuntime.h>

#include <string>

#include "x2ct/network.h"

namespace x2ct::tensorrt {

Shape shape_of(const nvinfer1::Dims& dims);

/// Throws InputError for more axes than TensorRT has.
nvinfer1::Dims dims_of(const Shape& shape, const std::string& name);

/// Whether `shape` lies between the two, axis by axis.
bool is_within(const Shape& shape, const Shape& least, const Shape& largest);

/// "[1, 1, 64, 64, 64] to [1, 1, 128, 128, 128]", or the one shape.
std::string range_text(const Shape& least, const Shape& largest);

/// The name that a plan's network is given, and what it says: the precision that its graph is typed in.
std::string name_for(const std::string& precision);
std::string precision_in(const std::string& name);

}  // namespace x2ct::tensorrt
