// A network as the core sees it: named float tensors in, named float tensors out.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "x2ct/error.h"

namespace x2ct {

using Shape = std::vector<std::int64_t>;

/// A graph's input or output: float32, C-contiguous; an axis of -1 is free.
struct TensorInfo {
    std::string name;
    Shape shape;
};

/// A tensor in the memory of the network's device.
struct TensorView {
    const float* data = nullptr;
    Shape shape;
};

inline std::int64_t volume_of(const Shape& shape) {
    std::int64_t count = 1;
    for (const std::int64_t axis : shape) count *= axis;
    return count;
}

/// "[1, 2, 352, 352]"
inline std::string to_string(const Shape& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

/// One layer of a compiled network, as its runtime ran it in the latest evaluation.
struct LayerTime {
    std::string name;    ///< the graph's, where the runtime keeps it
    std::string type;    ///< "Convolution"
    std::string kernel;  ///< what computed it: "brgconv_avx512_amx_bf16"
    double ms = 0;
};

/// One use of a network: its own inputs, outputs and scratch memory. Used by one thread at a time.
class Session {
  public:
    virtual ~Session() = default;

    /// Binds an input to memory of the caller's, read at each evaluation. The caller keeps it alive.
    virtual void set_input(const std::string& name, const float* data, const Shape& shape) = 0;
    /// Binds an output to memory of the caller's, written at each evaluation.
    virtual void set_output(const std::string& name, float* data, const Shape& shape) = 0;
    /// Evaluates once and returns when the outputs are written; where the network was loaded onto a stream, when the
    /// work is queued on it. Throws Error.
    virtual void evaluate() = 0;
    /// Whether evaluate() does nothing but queue work on the network's stream, the same for the same bindings: then a
    /// device may record it once, after one evaluation that it didn't record, and replay it.
    virtual bool is_recordable() const { return false; }
    /// An output after an evaluation; where it wasn't bound, the session's own memory, good until the next.
    virtual TensorView output(const std::string& name) = 0;
    /// The layers that ran in the latest evaluation, of a network that was loaded with `profile`.
    virtual std::vector<LayerTime> profile() {
        throw MissingRuntime("profile: this backend does not tell its layers' times; use backend openvino");
    }
};

/// One compiled network. Its methods may be called from any thread.
class Network {
  public:
    virtual ~Network() = default;

    virtual const std::vector<TensorInfo>& inputs() const = 0;
    virtual const std::vector<TensorInfo>& outputs() const = 0;
    virtual std::string device() const = 0;           ///< where its tensors lie: a Device's name
    virtual std::string precision() const = 0;        ///< what it computes in, read back from the compiled model
    virtual std::string runtime_version() const = 0;  ///< of the runtime that evaluates it
    /// The most that an evaluation holds at once between its inputs and outputs, as the runtime's graph tells it; 0
    /// where nothing is held, -1 where the runtime doesn't tell.
    virtual std::int64_t scratch_bytes() const { return 0; }
    virtual std::unique_ptr<Session> session() = 0;
};

/// Of what convolutions are given that are to compute in 8 bits, by the convolution's name: the least value and the
/// largest, with 0 between them. What lies beyond is cut.
using Int8Ranges = std::map<std::string, std::array<double, 2>>;

struct NetworkOptions {
    std::string path;  ///< the .onnx file
    std::string device = "cpu";
    /// "f32", "tf32", "bf16", "f16"; "auto" is the fastest of them that the device computes natively; or "int8", of the
    /// convolutions that `int8` names.
    std::string precision = "auto";
    int threads = 0;                      ///< 0 leaves it to the runtime
    std::map<std::string, Shape> shapes;  ///< of inputs, fixed before compiling
    /// ONNX Runtime's execution provider: "cpu", "cuda", "tensorrt"; "" is the device's own.
    std::string provider = {};
    std::map<std::string, std::string> provider_options = {};  ///< handed to the provider as they are
    Int8Ranges int8 = {};                                      ///< for precision "int8"
    bool profile = false;    ///< time each layer, for Session::profile; costs time itself
    bool replayed = false;   ///< it will be evaluated again and again on the same memory: worth a recording of its own
    void* stream = nullptr;  ///< a CUDA stream of the caller's that outlives the network; null: the runtime's own
};

}  // namespace x2ct
