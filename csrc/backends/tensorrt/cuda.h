// The few things of CUDA that a plan needs, each released when it goes. The CUDA runtime is linked statically: without
// a driver its calls fail, and nothing fails to load.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <utility>

namespace x2ct::tensorrt {

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

}  // namespace x2ct::tensorrt
