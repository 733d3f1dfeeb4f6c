// What ONNX Runtime's exceptions say; see ../guard.h.
#pragma once

#include <onnxruntime_cxx_api.h>
#include <array>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../guard.h"
#include "target.h"
#include "x2ct/network.h"

namespace x2ct::onnxruntime {

struct Failures {
    static constexpr const char* kName = "onnxruntime";
    static constexpr std::array kOutOfMemory = {"bad_alloc", "out of memory", "Failed to allocate memory",
                                                "CUDA failure 2:"};
    /// On one line, without the source locations that ONNX Runtime puts into it.
    static std::string text_of(const std::exception& error);
};

/// Runs work(); what it throws leaves as one of x2ct's exceptions.
template <typename Work>
auto guarded(const std::string& doing, const Work& work) -> decltype(work()) {
    return x2ct::guarded<Failures>(doing, work);
}

// The one instance of the runtime in the process.

/// Takes the runtime's functions out of its opened library. Throws MissingRuntime for one that is older than the
/// headers that this was built with.
void start(void* library);

std::string version();

/// Lives as long as the process: at exit the runtime's own static objects go in an order that is not ours to choose.
Ort::Env& environment();

/// What the runtime logs on this thread while one of these lives; what it logs elsewhere goes nowhere, for a library
/// prints nothing and a failure's text comes with its exception.
class Log {
  public:
    Log();
    ~Log();
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;

    const std::vector<std::string>& lines() const { return lines_; }

  private:
    std::vector<std::string> lines_;
};

// How a session comes to use an execution provider.

/// What was decided (target.h), if it is here. Throws what `decide` does, MissingRuntime for what isn't here.
Target choose(const NetworkOptions& options);

/// Makes sessions with these options use the target's provider. Throws Ort::Exception, MissingRuntime.
void append(Ort::SessionOptions& options, const Target& target);

/// Where the target's tensors lie.
Ort::MemoryInfo memory_of(const Target& target);

/// Why the runtime can't drive the provider, or "".
std::string flaw_of_provider(const std::string& provider);

// A graph's inputs and outputs.

/// A graph's inputs or outputs, with the names of the free axes ("" for one without).
struct Port {
    TensorInfo info;
    std::vector<std::string> axes;
};

/// Throws InputError for other types than float32.
std::vector<Port> inputs_of(const Ort::Session& model, const std::string& path);
std::vector<Port> outputs_of(const Ort::Session& model, const std::string& path);

/// The sizes of free axes, by name, that give the inputs these shapes. Throws InputError where a fixed axis has another
/// size, or one name would have two.
std::map<std::string, std::int64_t> sizes_of_axes(const std::vector<Port>& inputs, const NetworkOptions& options);

// One use of a network: a binding whose tensors are the caller's memory, on the device where the network runs.

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

// One network, read from ONNX and made into a session of the runtime.

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
