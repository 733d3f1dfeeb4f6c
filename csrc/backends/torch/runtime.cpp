#include "runtime.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <link.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <array>
#include <cstdint>
#include <filesystem>

namespace x2ct::torch {
namespace {

std::string& cuda_flaw() {
    static auto& flaw = *new std::string();
    return flaw;
}

void* cuda_library = nullptr;  // never closed, like the runtime

}  // namespace

std::string version() {
    const std::uint64_t number = aoti_torch_abi_version();
    const auto part = [number](int shift) { return std::to_string((number >> shift) & 0xff); };
    return part(56) + "." + part(48) + "." + part(40);
}

void open_cuda(void* runtime) {
    std::array<char, 4096> folder{};
    if (dlinfo(runtime, RTLD_DI_ORIGIN, folder.data()) != 0) return;
    const std::string path = (std::filesystem::path(folder.data()) / "libtorch_cuda.so").string();
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) {
        cuda_flaw() = "this torch " + version() + " was built without CUDA; install a build of torch==" + version() +
                      " with CUDA";
    } else if (cuda_library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); cuda_library == nullptr) {
        const char* const text = dlerror();
        cuda_flaw() = std::string("its libtorch_cuda.so can't be opened: ") + (text ? text : "unknown error");
    }
}

void* cuda_symbol(const char* name) { return cuda_library == nullptr ? nullptr : dlsym(cuda_library, name); }

std::string flaw_of_cuda() {
    if (!cuda_flaw().empty()) return cuda_flaw();
    return at::hasCUDA() && at::getNumGPUs() > 0 ? "" : "no NVIDIA GPU with a working driver was found";
}

c10::Device device_of(const Place& place) {
    if (place.is_cpu()) return c10::Device(c10::kCPU);
    return {c10::kCUDA, static_cast<c10::DeviceIndex>(place.index)};
}

Threads::Threads(int wanted) : before_(at::get_num_threads()) {
    if (wanted > 0 && wanted != before_) at::set_num_threads(wanted);
}

Threads::~Threads() {
    if (at::get_num_threads() != before_) at::set_num_threads(before_);
}

Tf32::Tf32(const Place& place, bool allowed) : active_(!place.is_cpu()) {
    if (!active_) return;
    at::Context& context = at::globalContext();
    cudnn_before_ = context.allowTF32CuDNN();
    cublas_before_ = context.allowTF32CuBLAS();
    context.setAllowTF32CuDNN(allowed);
    context.setAllowTF32CuBLAS(allowed);
}

Tf32::~Tf32() {
    if (!active_) return;
    at::globalContext().setAllowTF32CuDNN(cudnn_before_);
    at::globalContext().setAllowTF32CuBLAS(cublas_before_);
}

// PyTorch's own name for a foreign CUDA stream is its address (c10/cuda/CUDAStream.cpp, "external"): so that no CUDA
// header is needed, and one build serves PyTorch with CUDA and without.
c10::Stream stream_of(const Place& place, void* stream) {
    const c10::Device device = device_of(place);
    if (stream == nullptr) return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
    return c10::Stream(c10::Stream::UNSAFE, device,
                       static_cast<c10::StreamId>(reinterpret_cast<std::intptr_t>(stream)));
}

void wait_for(const Place& place) { stream_of(place, nullptr).synchronize(); }

}  // namespace x2ct::torch
