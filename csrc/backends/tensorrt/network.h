// One plan, read and ready: an engine, from which sessions are made.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

#include "failure.h"
#include "x2ct/network.h"

namespace x2ct::tensorrt {

/// What sessions share; its parts go in the order that they need each other.
struct Engine {
    Errors errors;
    std::shared_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    int device = 0;
    void* stream = nullptr;  ///< the caller's, or null
    std::vector<TensorInfo> inputs;
    std::vector<TensorInfo> outputs;
};

class TensorRtNetwork : public Network {
  public:
    explicit TensorRtNetwork(const NetworkOptions& options);

    const std::vector<TensorInfo>& inputs() const override { return engine_->inputs; }
    const std::vector<TensorInfo>& outputs() const override { return engine_->outputs; }
    std::string device() const override { return "cuda:" + std::to_string(engine_->device); }
    std::string precision() const override { return precision_; }
    std::string runtime_version() const override;
    std::int64_t scratch_bytes() const override;
    std::unique_ptr<Session> session() override;

  private:
    std::shared_ptr<Engine> engine_;
    std::string precision_;
};

}  // namespace x2ct::tensorrt
