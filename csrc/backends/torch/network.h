// One artefact, opened for a device and for shapes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model.h"
#include "placement.h"
#include "x2ct/network.h"

namespace x2ct::torch {

class TorchNetwork : public Network {
  public:
    explicit TorchNetwork(const NetworkOptions& options);

    const std::vector<TensorInfo>& inputs() const override { return inputs_; }
    const std::vector<TensorInfo>& outputs() const override { return outputs_; }
    std::string device() const override { return place_.name(); }
    std::string precision() const override { return precision_; }
    std::string runtime_version() const override;
    std::int64_t scratch_bytes() const override { return -1; }
    std::unique_ptr<Session> session() override;

  private:
    Place place_;
    std::string precision_;
    int threads_;
    void* stream_;
    std::string graph_;  // the option
    bool records_;       // whether a session is to be recordable, where it can be
    std::shared_ptr<Model> model_;
    std::vector<TensorInfo> inputs_;
    std::vector<TensorInfo> outputs_;
};

}  // namespace x2ct::torch
