// One use of a plan: an execution context whose tensors are the caller's device memory.
#pragma once

#include <NvInferRuntime.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "cuda.h"
#include "network.h"
#include "x2ct/network.h"

namespace x2ct::tensorrt {

class TensorRtSession : public Session {
  public:
    explicit TensorRtSession(std::shared_ptr<Engine> engine);
    ~TensorRtSession() override;

    void set_input(const std::string& name, const float* data, const Shape& shape) override;
    void set_output(const std::string& name, float* data, const Shape& shape) override;
    void evaluate() override;
    bool is_recordable() const override { return !own_stream_; }
    TensorView output(const std::string& name) override;

  private:
    void prepare();
    Shape output_shape(const std::string& name) const;
    const TensorInfo& info(const std::vector<TensorInfo>& tensors, const std::string& name) const;

    std::shared_ptr<Engine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::optional<Stream> own_stream_;  // where the caller has none
    DeviceMemory scratch_;
    std::map<std::string, Shape> shapes_;              // of inputs, as bound
    std::map<std::string, TensorView> bound_outputs_;  // in the caller's memory
    std::map<std::string, DeviceMemory> own_outputs_;
    bool is_prepared_ = false;
};

}  // namespace x2ct::tensorrt
