// What TensorRT and CUDA say when something fails becomes our exceptions: one line, and out of memory as such.
#pragma once

#include <NvInfer.h>
#include <NvInferRuntime.h>
#include <NvOnnxParser.h>
#include <cuda_runtime_api.h>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../guard.h"
#include "x2ct/network.h"
#include "x2ct/tiling.h"

namespace x2ct::tensorrt {

/// Throws what a CUDA call's result is: nothing for success, OutOfMemory, or Error.
void check(cudaError_t result, const std::string& doing);

/// Keeps the first errors that TensorRT reports on an object, and on what is made from it.
class Errors : public nvinfer1::IErrorRecorder {
  public:
    /// Throws what a failure while `doing` is, with what has been reported, and forgets it.
    [[noreturn]] void raise(const std::string& doing);

    std::int32_t getNbErrors() const noexcept override;
    nvinfer1::ErrorCode getErrorCode(std::int32_t index) const noexcept override;
    ErrorDesc getErrorDesc(std::int32_t index) const noexcept override;
    bool hasOverflowed() const noexcept override { return false; }
    void clear() noexcept override;
    bool reportError(nvinfer1::ErrorCode code, ErrorDesc text) noexcept override;
    // Whoever holds TensorRT's objects holds their recorder; the count is for TensorRT alone.
    RefCount incRefCount() noexcept override { return ++references_; }
    RefCount decRefCount() noexcept override { return --references_; }

  private:
    struct Entry {
        nvinfer1::ErrorCode code;
        std::string text;
    };
    mutable std::mutex mutex_;
    std::vector<Entry> entries_;
    std::atomic<RefCount> references_ = 0;
};

/// TensorRT throws nothing; what C++'s library throws on the way is told as it stands.
struct Failures {
    static constexpr const char* kName = "tensorrt";
    static constexpr std::array kOutOfMemory = {"bad_alloc", "out of memory"};
    static std::string text_of(const std::exception& error) { return one_line(error.what()); }
};

/// Runs work(); what it throws leaves as one of x2ct's exceptions.
template <typename Work>
auto guarded(const std::string& doing, const Work& work) -> decltype(work()) {
    return x2ct::guarded<Failures>(doing, work);
}

// The few things of CUDA that a plan needs, each released when it goes. The CUDA runtime is linked statically: without
// a driver its calls fail, and nothing fails to load.

/// The index of "cuda" or "cuda:N". Throws InputError for another name, MissingRuntime where there is no such GPU.
int device_index(const std::string& device);

/// Why no GPU can be used here, or "".
std::string flaw_of_cuda();

/// "NVIDIA H200, compute capability 9.0": what a plan is built for.
std::string describe_device(int index);

/// Makes a device the calling thread's current one, as long as it lives.
class OnDevice {
  public:
    explicit OnDevice(int index);
    ~OnDevice();
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

  private:
    int before_ = 0;
};

/// A stream that waits for no other.
class Stream {
  public:
    explicit Stream(int device);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    cudaStream_t get() const { return stream_; }

  private:
    int device_;
    cudaStream_t stream_ = nullptr;
};

/// Memory of a device, aligned to 256 bytes and more. Throws OutOfMemory.
class DeviceMemory {
  public:
    DeviceMemory() = default;
    DeviceMemory(int device, std::size_t bytes);
    DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
    DeviceMemory& operator=(DeviceMemory&& other) noexcept {
        swap(other);
        return *this;
    }
    ~DeviceMemory();

    void* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }

  private:
    void swap(DeviceMemory& other) noexcept {
        std::swap(device_, other.device_);
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
    }

    int device_ = 0;
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};

// Whole files.

/// What is in a file; none where it can't be read.
std::optional<std::vector<char>> read_file(const std::string& path);

/// Throws Error.
void write_file(const std::string& path, const void* data, std::size_t bytes);

// TensorRT's libraries, opened at run time: nothing here is linked to them. What is used is in both 10.x and 11.x.

/// Takes the functions that make TensorRT's objects out of its opened library. Throws MissingRuntime for a library of
/// another major version than the headers that this was built with: its objects are laid out in another way.
void start(void* library);

/// "10.16.0.72", of the library.
std::string version();

/// What takes a plan. Its errors, and those of what it makes, go to `errors`, which outlives it.
std::shared_ptr<nvinfer1::IRuntime> make_runtime(Errors& errors);

std::unique_ptr<nvinfer1::IBuilder> make_builder(Errors& errors);

/// From libnvonnxparser, which is opened the first time, from the folder where libnvinfer is. Throws MissingRuntime.
std::unique_ptr<nvonnxparser::IParser> make_parser(nvinfer1::INetworkDefinition& network);

// Shapes and names between TensorRT's words and ours.

Shape shape_of(const nvinfer1::Dims& dims);

/// Throws InputError for more axes than TensorRT has.
nvinfer1::Dims dims_of(const Shape& shape, const std::string& name);

/// Whether `shape` lies between the two, axis by axis.
bool is_within(const Shape& shape, const Shape& least, const Shape& largest);

/// "[1, 1, 64, 64, 64] to [1, 1, 128, 128, 128]", or the one shape.
std::string range_text(const Shape& least, const Shape& largest);

/// The name that a plan's network is given, and what it says: the precision that its graph is typed in.
std::string name_for(const std::string& precision);
std::string precision_in(const std::string& name);

// From an ONNX file to a plan.

/// Writes a plan: a strongly typed network, one profile. Throws InputError for a file or an option that is wrong,
/// MissingRuntime, OutOfMemory, Cancelled, Error.
void build_plan(const PlanOptions& options);

// One plan, read and ready: an engine, from which sessions are made.

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

// One use of a plan: an execution context whose tensors are the caller's device memory.

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
