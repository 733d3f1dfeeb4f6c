// One use of an artefact: tensors over the caller's memory in. What comes out is PyTorch's own memory, for neither
// TorchScript nor a package takes an output's place from outside: it is copied where the caller bound it, once. With a
// pool all of that memory is the session's alone, so that a device may record an evaluation and replay it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "model.h"
#include "placement.h"
#include "pool.h"
#include "x2ct/network.h"

namespace x2ct::torch {

class TorchSession : public Session {
  public:
    TorchSession(std::shared_ptr<Model> model, std::vector<TensorInfo> inputs, std::vector<TensorInfo> outputs,
                 Place place, bool tf32, int threads, void* stream, std::unique_ptr<Pool> pool);

    void set_input(const std::string& name, const float* data, const Shape& shape) override;
    void set_output(const std::string& name, float* data, const Shape& shape) override;
    void evaluate() override;
    bool is_recordable() const override { return pool_ != nullptr; }
    TensorView output(const std::string& name) override;

  private:
    void run();
    at::Tensor wrap(const TensorInfo& info, float* data, const Shape& shape) const;

    std::shared_ptr<Model> model_;
    std::vector<TensorInfo> inputs_;
    std::vector<TensorInfo> outputs_;
    Place place_;
    bool tf32_;
    int threads_;
    void* stream_;
    std::unique_ptr<Pool> pool_;     // goes after the tensors that lie in it
    std::vector<at::Tensor> given_;  // in the order of inputs_
    std::vector<at::Tensor> bound_;  // in the order of outputs_; undefined where the caller bound none
    std::vector<at::Tensor> made_;
};

}  // namespace x2ct::torch
