// One network, read from ONNX and compiled.
#pragma once

#include <memory>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "x2ct/network.h"

namespace x2ct::openvino {

class OpenVinoNetwork : public Network {
  public:
    OpenVinoNetwork(ov::Core& core, const NetworkOptions& options);

    const std::vector<TensorInfo>& inputs() const override { return inputs_; }
    const std::vector<TensorInfo>& outputs() const override { return outputs_; }
    std::string device() const override { return device_; }
    std::string precision() const override { return precision_; }
    std::string runtime_version() const override;
    std::int64_t scratch_bytes() const override;
    std::unique_ptr<Session> session() override;

  private:
    std::string device_;
    std::string precision_;
    std::vector<TensorInfo> inputs_;
    std::vector<TensorInfo> outputs_;
    ov::CompiledModel model_;
};

/// "2026.4.1-..." without the build's number.
std::string version();

}  // namespace x2ct::openvino
