// One network, read from ONNX and made into a session of the runtime.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <memory>
#include <string>
#include <vector>

#include "provider.h"
#include "x2ct/network.h"

namespace x2ct::onnxruntime {

class OrtNetwork : public Network {
  public:
    explicit OrtNetwork(const NetworkOptions& options);

    const std::vector<TensorInfo>& inputs() const override { return inputs_; }
    const std::vector<TensorInfo>& outputs() const override { return outputs_; }
    std::string device() const override { return target_.device; }
    std::string precision() const override { return target_.precision; }
    std::string runtime_version() const override;
    std::int64_t scratch_bytes() const override { return -1; }
    std::unique_ptr<Session> session() override;

  private:
    Target target_;
    std::vector<TensorInfo> inputs_;
    std::vector<TensorInfo> outputs_;
    std::shared_ptr<Ort::Session> model_;
};

}  // namespace x2ct::onnxruntime
