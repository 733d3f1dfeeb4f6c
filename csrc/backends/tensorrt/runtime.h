// TensorRT's libraries, opened at run time: nothing here is linked to them. What is used is in both 10.x and 11.x.
#pragma once

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <memory>
#include <string>

#include "failure.h"

namespace x2ct::tensorrt {

/// Takes the functions that make TensorRT's objects out of its opened library. Throws MissingRuntime for a library of
/// another major version than the headers that this was built with: its objects are laid out in another way.
void start(void* library);

/// "10.16.0.72", of the library.
std::string version();

/// What takes a plan. Its errors, and those of what it makes, go to `errors`, which outlives it.
std::shared_ptr<nvinfer1::IRuntime> make_runtime(Errors& errors);

std::unique_ptr<nvinfer1::IBuilder> make_builder(Errors& errors);

/// From libnvonnxparser, which is opened the first time, from the folder where libnvinfer is. Throws MissingRuntime.
std::unique_ptr<nvonnxparser::IParser> make_parser(nvinfer1::INetworkDefinition& network);

}  // namespace x2ct::tensorrt
