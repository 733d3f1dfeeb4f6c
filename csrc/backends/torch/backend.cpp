#include "x2ct/backend.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <link.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>

#include "../binding.h"
#include "placement.h"
#include "torch_backend.h"

namespace x2ct::torch {

std::string Failures::text_of(const std::exception& error) {
    const auto* const own = dynamic_cast<const c10::Error*>(&error);
    return one_line(own == nullptr ? error.what() : own->what_without_backtrace());
}

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

// The torch backend: the library's door. PyTorch's C++ symbols belong to one release, so whoever opens this library has
// opened the runtime before and has seen that it is the one that this was built with.
namespace {

class TorchBackend : public Backend {
  public:
    std::string version() const override { return torch::version(); }

    std::vector<std::string> devices() const override {
        return guarded("asking", [] {
            std::vector<std::string> here = {"cpu"};
            if (flaw_of_cuda().empty()) here.emplace_back("cuda");
            return here;
        });
    }

    std::map<std::string, std::string> missing_devices() const override {
        return guarded("asking", [] {
            std::map<std::string, std::string> missing;
            const std::string flaw = flaw_of_cuda();
            if (!flaw.empty()) missing["cuda"] = flaw;
            return missing;
        });
    }

    std::vector<std::string> precisions(const std::string& device) const override {
        return precisions_of(place_of(device).kind);
    }

    std::unique_ptr<Network> load(const NetworkOptions& options) override {
        return guarded("loading " + options.path, [&] { return std::make_unique<TorchNetwork>(options); });
    }
};

}  // namespace
}  // namespace x2ct::torch

extern "C" X2CT_VISIBLE std::uint32_t x2ct_backend_abi() { return x2ct::kBackendAbi; }

extern "C" X2CT_VISIBLE x2ct::Backend* x2ct_backend_open(void* runtime) {
    x2ct::torch::guarded("starting", [&] { x2ct::torch::open_cuda(runtime); });
    static auto* backend = new x2ct::torch::TorchBackend();  // never destroyed, like the runtime
    return backend;
}

namespace x2ct::torch {

TorchSession::TorchSession(std::shared_ptr<Model> model, std::vector<TensorInfo> inputs,
                           std::vector<TensorInfo> outputs, Place place, bool tf32, int threads, void* stream,
                           std::unique_ptr<Pool> pool)
    : model_(std::move(model)),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      place_(std::move(place)),
      tf32_(tf32),
      threads_(threads),
      stream_(stream),
      pool_(std::move(pool)),
      given_(inputs_.size()),
      bound_(outputs_.size()),
      made_(outputs_.size()) {}

at::Tensor TorchSession::wrap(const TensorInfo& info, float* data, const Shape& shape) const {
    check_fits(info, shape);
    const c10::Device device = device_of(place_);
    const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
    return at::for_blob(data, shape).target_device(device).options(options).make_tensor();
}

void TorchSession::set_input(const std::string& name, const float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const std::size_t index = index_of(inputs_, name);
        given_[index] = wrap(inputs_[index], const_cast<float*>(data), shape);  // only ever read
    });
}

void TorchSession::set_output(const std::string& name, float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const std::size_t index = index_of(outputs_, name);
        bound_[index] = wrap(outputs_[index], data, shape);
    });
}

void TorchSession::evaluate() {
    for (std::size_t i = 0; i < given_.size(); ++i) {
        if (!given_[i].defined()) throw InputError(inputs_[i].name + ": found no tensor, expected one to be bound");
    }
    guarded("evaluating", [&] {
        const c10::InferenceMode inference;
        const Threads threads(place_.is_cpu() ? threads_ : 0);
        const Tf32 tf32(place_, tf32_);
        std::optional<c10::StreamGuard> current;
        if (stream_ != nullptr) current.emplace(stream_of(place_, stream_));
        if (pool_) {
            pool_->within([&] { run(); });
        } else {
            run();
        }
        if (!place_.is_cpu() && stream_ == nullptr) wait_for(place_);
    });
}

void TorchSession::run() {
    const auto found = model_->run(given_, stream_);
    if (found.size() != outputs_.size()) {
        throw Error("torch: evaluating: found " + std::to_string(found.size()) + " outputs, expected " +
                    std::to_string(outputs_.size()));
    }
    for (std::size_t i = 0; i < found.size(); ++i) {
        if (!fits(Shape(found[i].sizes().begin(), found[i].sizes().end()), outputs_[i].shape)) {
            throw Error("torch: evaluating: " + outputs_[i].name + ": found another shape, expected " +
                        to_string(outputs_[i].shape));
        }
        if (bound_[i].defined()) bound_[i].copy_(found[i]);
        made_[i] = bound_[i].defined() ? bound_[i] : found[i].to(at::kFloat).contiguous();
    }
}

TensorView TorchSession::output(const std::string& name) {
    const at::Tensor& found = made_[index_of(outputs_, name)];
    if (!found.defined()) throw Error("torch: reading " + name + ": found nothing, expected an evaluation before");
    return {found.const_data_ptr<float>(), Shape(found.sizes().begin(), found.sizes().end())};
}

}  // namespace x2ct::torch
