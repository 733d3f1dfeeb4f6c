// One use of a network: a binding whose tensors are the caller's memory, on the device where the network runs.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "x2ct/network.h"

namespace x2ct::onnxruntime {

class OrtSession : public Session {
  public:
    OrtSession(std::shared_ptr<Ort::Session> model, std::vector<TensorInfo> inputs, std::vector<TensorInfo> outputs,
               Ort::MemoryInfo memory, Ort::RunOptions run, bool records);

    void set_input(const std::string& name, const float* data, const Shape& shape) override;
    void set_output(const std::string& name, float* data, const Shape& shape) override;
    void evaluate() override;
    TensorView output(const std::string& name) override;

  private:
    void choose_graph();

    std::shared_ptr<Ort::Session> model_;
    std::vector<TensorInfo> inputs_;
    std::vector<TensorInfo> outputs_;
    Ort::MemoryInfo memory_;
    Ort::RunOptions run_;
    Ort::IoBinding binding_;  // holds outputs in the order of outputs_
    bool records_;
    std::map<std::string, const float*> bound_;                  // by input and output
    std::map<std::map<std::string, const float*>, int> graphs_;  // the provider's, by what was bound
    std::vector<bool> is_bound_;                                 // outputs that are in the caller's memory
};

}  // namespace x2ct::onnxruntime
