// What PyTorch's exceptions say; see ../guard.h.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <array>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../guard.h"
#include "placement.h"
#include "pool.h"
#include "x2ct/network.h"

namespace x2ct::torch {

struct Failures {
    static constexpr const char* kName = "torch";
    static constexpr std::array kOutOfMemory = {"bad_alloc", "out of memory", "can't allocate memory",
                                                "not enough memory"};
    /// On one line, without the backtrace that PyTorch puts behind it.
    static std::string text_of(const std::exception& error);
};

/// Runs work(); what it throws leaves as one of x2ct's exceptions.
template <typename Work>
auto guarded(const std::string& doing, const Work& work) -> decltype(work()) {
    return x2ct::guarded<Failures>(doing, work);
}

// PyTorch's own state that an evaluation needs set, and set back behind it.
//
// What PyTorch forces on the process: its number of threads is one for all who use it, this library or Python's torch,
// and so is whether TF32 is allowed. Both are set for the length of an evaluation and then put back; somebody else who
// evaluates meanwhile sees them. The stream is a matter of the calling thread alone.

/// The release, as the library itself says it: "2.13.0".
std::string version();

/// Opens the CUDA part of the runtime, where the library that is open has one beside it.
void open_cuda(void* runtime);

/// A symbol of the CUDA part or of what it is linked to, such as libc10_cuda.so; null where there is none.
void* cuda_symbol(const char* name);

/// Why there is no CUDA device to be had; "" where there is.
std::string flaw_of_cuda();

c10::Device device_of(const Place& place);

class Threads {
  public:
    explicit Threads(int wanted);  ///< 0 leaves them alone
    ~Threads();
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;

  private:
    int before_;
};

/// On a GPU, whether matrix products and convolutions may take TF32, which PyTorch asks for at each call.
class Tf32 {
  public:
    Tf32(const Place& place, bool allowed);
    ~Tf32();
    Tf32(const Tf32&) = delete;
    Tf32& operator=(const Tf32&) = delete;

  private:
    bool active_, cudnn_before_ = false, cublas_before_ = false;
};

/// The caller's CUDA stream as PyTorch's current one.
c10::Stream stream_of(const Place& place, void* stream);

/// Waits for what the current stream of a GPU has been given.
void wait_for(const Place& place);

// An artefact as PyTorch runs it: a TorchScript file (.pt) or an AOTInductor package (.pt2). Both hold code, and
// opening one is running it: whoever asks for it has decided to trust it.

class Model {
  public:
    virtual ~Model() = default;

    /// Evaluates once, on the current stream of a GPU or on the CPU. May be called from any thread.
    virtual std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, void* stream) = 0;
    virtual std::string description() const = 0;  ///< the JSON that x2ct export put into it; "" where there is none
    /// The narrowest type of its weights, "f32", "bf16" or "f16", read from the model itself; "" where it has none.
    virtual std::string weights() const = 0;
};

/// `one_stream`: all evaluations come from one stream and one after the other, so that a package needs no events of its
/// own, which would not be recordable. Throws InputError for a file that is neither.
std::unique_ptr<Model> load_model(const std::string& path, const Place& place, bool one_stream);

// What an artefact says of itself, in the JSON that `x2ct export` puts into it: its tensors by name, and of which graph
// of a bundle it was made. A TorchScript file and an AOTInductor package know no names of their own. No types of
// PyTorch.

/// Grows when the JSON's meaning changes.
inline constexpr int kDescriptionSchema = 1;

/// A tensor as it is declared: an axis is a number ("1"), a name ("X"), or a name's part ("X/4").
struct Port {
    std::string name;
    std::vector<std::string> axes;
};

struct Description {
    std::string onnx_sha256;  ///< of the graph that it was made of
    std::string device;       ///< "cpu" or "cuda": what it was made for
    std::int64_t stride = 1;  ///< X, Y and Z are multiples of it
    std::vector<Port> inputs;
    std::vector<Port> outputs;
};

/// Throws InputError, naming `path`, for a text that describes nothing.
Description description_of(const std::string& text, const std::string& path);

/// The sizes of the named axes, as the shapes that were asked for tell them. Throws InputError.
std::map<std::string, std::int64_t> sizes_of_axes(const Description& description, const NetworkOptions& options);

/// The tensors with those sizes; an axis without one is free, -1.
std::vector<TensorInfo> infos(const std::vector<Port>& ports, const std::map<std::string, std::int64_t>& sizes);

// One use of an artefact: tensors over the caller's memory in. What comes out is PyTorch's own memory, for neither
// TorchScript nor a package takes an output's place from outside: it is copied where the caller bound it, once. With a
// pool all of that memory is the session's alone, so that a device may record an evaluation and replay it.

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

// One artefact, opened for a device and for shapes.

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
