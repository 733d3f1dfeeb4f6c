// Compiled engines: what a runtime opens in place of a bundle's ONNX graphs, made from them on the machine that runs
// it.
#pragma once

#include <map>
#include <string>

#include "x2ct/bundle.h"
#include "x2ct/networks.h"

namespace x2ct {

/// Names the compiled engines in `folder` for `options`, by the names that `x2ct build -o` and `x2ct export
/// --artefacts` give them: GRAPH.plan for "tensorrt"; GRAPH.pt2 or GRAPH.pt for "torch", where options.provider is
/// "aoti", "torchscript", or "" for the first that is there; denoiser.PRECISION.onnx for "onnxruntime" in bf16 or f16.
/// Other backends open ONNX, and `folder` must be empty.
///
/// Plans and torch's files are code, and nothing here can tell who made them: they need `trust`. Throws InputError
/// without it, and for a folder that is of no use; MissingRuntime for an engine that isn't there.
void use_engines(PipelineOptions& options, const Bundle& bundle, const std::string& backend, const std::string& folder,
                 bool trust);

}  // namespace x2ct
