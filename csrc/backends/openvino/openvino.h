// What OpenVINO's exceptions say; see ../guard.h.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <memory>
#include <openvino/core/model.hpp>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "../guard.h"
#include "x2ct/network.h"

namespace x2ct::openvino {

struct Failures {
    static constexpr const char* kName = "openvino";
    static constexpr std::array kOutOfMemory = {"bad_alloc", "out of memory", "Cannot allocate memory",
                                                "could not allocate"};
    /// On one line, without the source locations that OpenVINO puts before it.
    static std::string text_of(const std::exception& error);
};

/// Runs work(); what it throws leaves as one of x2ct's exceptions.
template <typename Work>
auto guarded(const std::string& doing, const Work& work) -> decltype(work()) {
    return x2ct::guarded<Failures>(doing, work);
}

// Names of precisions, and what the device computes natively.

/// OpenVINO's name of a device of ours ("cpu" -> "CPU"). Throws MissingRuntime for one that this backend doesn't drive.
std::string device_of(const std::string& name);

/// Fastest first, by what the device says of itself; "int8" is the last.
std::vector<std::string> native_precisions(ov::Core& core, const std::string& device);

/// What to compile in for "auto" or a name. Throws InputError for an unknown one, MissingRuntime for one that the
/// device would not compute in (OpenVINO takes such a hint and computes in something else).
/// Of "int8": of all but the convolutions.
ov::element::Type choose(const std::string& wanted, const std::vector<std::string>& native, const std::string& device);

std::string name_of(const ov::element::Type& type);

// How much memory an evaluation needs at once.

/// Bytes of the tensors that are alive at once, at most, in a compiled model's runtime graph with static shapes: each
/// lives from the node that makes it to the last that reads it. Constants and the model's inputs are not counted.
std::int64_t most_alive(const ov::Model& runtime);

// Convolutions in 8 bits.

/// Rounds what the convolutions that the options name are given, and their weights, to 8 bits: activations to 256
/// values of their range, one of them 0; weights to 255 values about 0, a range for each channel that comes out.
/// OpenVINO then computes them in integers. Throws InputError where a name is no convolution's.
void quantise(ov::Model& model, const NetworkOptions& options);

/// Throws MissingRuntime unless each of them runs in 8 bits, by the compiled model's own word.
void check_quantised(const ov::Model& runtime, const NetworkOptions& options);

// One use of a compiled network: an infer request whose tensors are the caller's memory.

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

// One network, read from ONNX and compiled.

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
