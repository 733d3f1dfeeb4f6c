// An artefact as PyTorch runs it: a TorchScript file (.pt) or an AOTInductor package (.pt2). Both hold code, and
// opening one is running it: whoever asks for it has decided to trust it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "placement.h"

namespace x2ct::torch {

class Model {
  public:
    virtual ~Model() = default;

    /// Evaluates once, on the current stream of a GPU or on the CPU. May be called from any thread.
    virtual std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, void* stream) = 0;
    virtual std::string description() const = 0;  ///< the JSON that x2ct export put into it; "" where there is none
    /// The narrowest type of its weights, "f32", "bf16" or "f16", read from the model itself; "" where it has none.
    virtual std::string weights() const = 0;
};

/// `one_stream`: all evaluations come from one stream and one after the other, so that a package needs no events of its
/// own, which would not be recordable. Throws InputError for a file that is neither.
std::unique_ptr<Model> load_model(const std::string& path, const Place& place, bool one_stream);

}  // namespace x2ct::torch
