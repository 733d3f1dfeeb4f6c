#include "cuda.h"

#include "core/place.h"
#include "failure.h"
#include "x2ct/error.h"

namespace x2ct::tensorrt {

std::string flaw_of_cuda() {
    int count = 0;
    const cudaError_t result = cudaGetDeviceCount(&count);
    (void)cudaGetLastError();
    if (result == cudaSuccess && count > 0) return "";
    const std::string why = result == cudaSuccess ? "no CUDA-capable device is detected" : cudaGetErrorString(result);
    return "CUDA has no GPU here: " + one_line(why) + "; it needs an NVIDIA GPU and its driver";
}

int device_index(const std::string& device) {
    if (device == "auto" || place_of(device).is_cpu()) {
        throw MissingRuntime("device " + device + ": the tensorrt backend drives cuda only; use device cuda");
    }
    if (const std::string flaw = flaw_of_cuda(); !flaw.empty()) throw MissingRuntime("device " + device + ": " + flaw);
    int count = 0;
    check(cudaGetDeviceCount(&count), "counting GPUs");
    const int found = place_of(device).index;
    if (found >= count) {
        throw MissingRuntime("device " + device + ": found " + std::to_string(count) +
                             " GPUs, the last is cuda:" + std::to_string(count - 1));
    }
    return found;
}

std::string describe_device(int index) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, index), "asking cuda:" + std::to_string(index));
    return std::string(properties.name) + ", compute capability " + std::to_string(properties.major) + "." +
           std::to_string(properties.minor);
}

OnDevice::OnDevice(int index) {
    check(cudaGetDevice(&before_), "asking for the current device");
    check(cudaSetDevice(index), "choosing cuda:" + std::to_string(index));
}

OnDevice::~OnDevice() { (void)cudaSetDevice(before_); }

Stream::Stream(int device) : device_(device) {
    const OnDevice current(device_);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
}

Stream::~Stream() { (void)cudaStreamDestroy(stream_); }

DeviceMemory::DeviceMemory(int device, std::size_t bytes) : device_(device), bytes_(bytes) {
    if (bytes == 0) return;
    const OnDevice current(device_);
    check(cudaMalloc(&data_, bytes), "allocating " + std::to_string(bytes >> 20) + " MiB on the GPU");
}

DeviceMemory::~DeviceMemory() {
    if (data_ != nullptr) (void)cudaFree(data_);
}

}  // namespace x2ct::tensorrt
