// One use of a compiled network: an infer request whose tensors are the caller's memory.
#pragma once

#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "x2ct/network.h"

namespace x2ct::openvino {

class OpenVinoSession : public Session {
  public:
    explicit OpenVinoSession(const ov::CompiledModel& model) : model_(model), request_(model_.create_infer_request()) {}

    void set_input(const std::string& name, const float* data, const Shape& shape) override;
    void set_output(const std::string& name, float* data, const Shape& shape) override;
    void evaluate() override;
    TensorView output(const std::string& name) override;
    std::vector<LayerTime> profile() override;

  private:
    ov::CompiledModel model_;
    ov::InferRequest request_;
};

}  // namespace x2ct::openvino
