#include "devices/cuda/cuda.h"

#include <algorithm>
#include <string>
#include <utility>

#include "devices/cuda/launch.h"
#include "x2ct/devices.h"
#include "x2ct/error.h"

namespace x2ct::cuda {

void check(cudaError_t status, const char* doing) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // what can be forgotten is, so that the next call doesn't find it
    const std::string line = std::string("cuda: ") + doing + ": " + cudaGetErrorString(status);
    if (status == cudaErrorMemoryAllocation) throw OutOfMemory(line);
    if (status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice) throw MissingRuntime(line);
    throw Error(line);
}

// The CUDA device: one GPU with a stream of its own. Everything is queued on the stream; the host waits where wait(),
// drain(), forget() and download() say so, and nowhere else. The host's threads copy results, and compute nothing.
namespace {

constexpr int kOldest = 8;  // compute capability
constexpr std::size_t kMostGraphs = 4096;
constexpr std::size_t kFewestRows = 64;  // of the table, so that it seldom has to grow

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

kernels::RowProgram::Weights program_of(const RowKernel::Weights& weights) {
    return {weights.x, weights.y, {weights.h[0], weights.h[1], weights.h[2], weights.h[3]}, weights.noise};
}

kernels::RowProgram program_of(const RowKernel& kernel) {
    return {.x = kernel.x,
            .y = kernel.y,
            .denoised = kernel.denoised,
            .h = {kernel.h[0], kernel.h[1], kernel.h[2], kernel.h[3]},
            .new_x = kernel.new_x,
            .new_y = kernel.new_y,
            .new_h = kernel.new_h,
            .count = kernel.count,
            .seed = kernel.noise.seed,
            .draw = kernel.noise.draw,
            .sample = kernel.noise.sample,
            .a = kernel.a,
            .b = kernel.b,
            .to_x = program_of(kernel.to_x),
            .to_y = program_of(kernel.to_y)};
}

kernels::BoxProgram program_of(const BoxCopy& box) {
    kernels::BoxProgram program{};
    program.from = box.from, program.to = box.to, program.channels = box.channels, program.width = 4;
    for (int axis = 0; axis < 3; ++axis) {
        program.from_grid[axis] = box.from_grid[axis], program.from_origin[axis] = box.from_origin[axis];
        program.to_grid[axis] = box.to_grid[axis], program.to_origin[axis] = box.to_origin[axis];
        program.extent[axis] = box.extent[axis];
    }
    const auto place = [](const float* memory) {
        return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(memory) / sizeof(float));
    };
    for (const std::int64_t along : {box.from_grid[2], box.from_origin[2], box.to_grid[2], box.to_origin[2],
                                     box.extent[2], place(box.from), place(box.to)}) {
        if (along % 4 != 0) program.width = 1;
    }
    return program;
}

}  // namespace

Stream::Stream() { check(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "making a stream"); }

Stream::~Stream() { cudaStreamDestroy(handle_); }

Cuda::Cuda(int index) : index_(on(index)), staging_(stream_.handle()), clock_(stream_.handle()) { load_kernels(); }

Cuda::~Cuda() { Cuda::drain(); }

// Which GPU a thread's calls go to is the thread's own state.
int Cuda::on(int index) {
    check(cudaSetDevice(index), "choosing a GPU");
    return index;
}

std::string Cuda::name() const { return "cuda:" + std::to_string(index_); }

float* Cuda::allocate(std::size_t count) {
    on(index_);
    if (count > std::size_t{1} << 60) throw OutOfMemory("cuda: out of memory for " + std::to_string(count) + " floats");
    return pool_.take(count * sizeof(float));
}

void Cuda::release(float* memory) noexcept {
    cudaSetDevice(index_);
    pool_.give_back(memory);
}

void Cuda::upload(float* to, const float* from_host, std::size_t count) {
    on(index_);
    staging_.upload(to, from_host, count * sizeof(float));
}

void Cuda::download(float* to_host, const float* from, std::size_t count) {
    on(index_);
    staging_.download(to_host, from, count * sizeof(float));
}

void Cuda::run(const RowKernel& kernel) {
    on(index_);
    const std::int64_t quads = kernels::quads(kernel.count);
    if (kernel.row < 0) {
        launch(OneRow{program_of(kernel)}, quads, stream_.handle());
        return;
    }
    clock_.kernel_begins(kernel.row, recording_);
    launch(TableRow{table_, kernel.row}, quads, stream_.handle());
    clock_.kernel_ends(kernel.row, recording_);
}

void Cuda::run(const RayKernel& kernel) {
    on(index_);
    launch(kernel, stream_.handle());
}

void Cuda::copy(const BoxCopy& box) {
    on(index_);
    const kernels::BoxProgram program = program_of(box);
    launch(Box{program}, kernels::pieces(program), stream_.handle());
}

std::optional<std::int64_t> Cuda::free_bytes() const {
    on(index_);
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for free memory");
    return static_cast<std::int64_t>(free) + pool_.kept_bytes();
}

void Cuda::begin(std::span<const RowKernel> rows) {
    on(index_);
    if (rows.size() > table_rows_) {
        drain();
        graphs_.clear();  // they read the table where it was
        pool_.give_back(reinterpret_cast<float*>(std::exchange(table_, nullptr)));
        table_rows_ = std::max(rows.size(), kFewestRows);
        table_ = reinterpret_cast<kernels::RowProgram*>(pool_.take(table_rows_ * sizeof(kernels::RowProgram)));
    }
    std::vector<kernels::RowProgram> programs;
    programs.reserve(rows.size());
    for (const RowKernel& row : rows) programs.push_back(program_of(row));
    staging_.upload(table_, programs.data(), programs.size() * sizeof(kernels::RowProgram));
    clock_.begin(rows);
}

void Cuda::row(int row, const std::string& key, const std::function<void()>& work) {
    on(index_);
    const auto whole = [&] {
        clock_.row_begins(row, recording_);
        work();
        clock_.row_ends(row, recording_);
    };
    if (key.empty() || !warm_) {
        whole();
        warm_ = warm_ || !key.empty();
    } else {
        recorded(key, whole).launch(stream_.handle());
    }
    clock_.queued(row);
}

const Graph& Cuda::recorded(const std::string& key, const std::function<void()>& work) {
    if (const auto found = graphs_.find(key); found != graphs_.end()) return found->second;
    if (graphs_.size() >= kMostGraphs) {
        drain();
        graphs_.clear();
    }
    struct Recording {
        explicit Recording(bool& is) : is_(is) { is_ = true; }
        ~Recording() { is_ = false; }
        bool& is_;
    } const recording(recording_);
    return graphs_.emplace(key, Graph(stream_.handle(), work)).first->second;
}

void Cuda::forget() noexcept {
    drain();
    graphs_.clear();
    warm_ = false;
}

void Cuda::wait(int row) {
    on(index_);
    ++waits_;
    clock_.wait(row);
}

void Cuda::drain() noexcept {
    cudaSetDevice(index_);
    ++waits_;
    cudaStreamSynchronize(stream_.handle());
}

std::optional<DeviceTimes> Cuda::times() {
    on(index_);
    return clock_.times();
}

std::vector<std::string> list() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (status == cudaErrorInsufficientDriver) {
        int driver = 0, runtime = 0;
        cudaDriverGetVersion(&driver);
        cudaRuntimeGetVersion(&runtime);
        if (driver == 0)
            throw MissingRuntime("device cuda: there is no NVIDIA driver here; install one, or use the CPU");
        throw MissingRuntime("device cuda: the NVIDIA driver is for CUDA " + version_text(driver) +
                             ", expected one for " + version_text(runtime) + " or newer; install a newer driver");
    }
    if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
        throw MissingRuntime("device cuda: the NVIDIA driver sees no GPU here; use the CPU");
    }
    check(status, "looking for GPUs");
    std::vector<std::string> found;
    for (int index = 0; index < count; ++index) {
        cudaDeviceProp properties{};
        check(cudaGetDeviceProperties(&properties, index), "looking at a GPU");
        found.push_back(std::string(properties.name) + ", compute capability " + std::to_string(properties.major) +
                        "." + std::to_string(properties.minor) + ", " +
                        std::to_string(properties.totalGlobalMem >> 30) + " GiB");
    }
    return found;
}

Device* open(int index) {
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "looking at a GPU");
    if (major < kOldest) {
        throw MissingRuntime("device cuda:" + std::to_string(index) + ": found compute capability " +
                             std::to_string(major) + ".x, expected 8.0 or newer");
    }
    return new Cuda(index);
}

}  // namespace x2ct::cuda

// The library's door.
extern "C" X2CT_VISIBLE std::uint32_t x2ct_device_abi() { return x2ct::kDeviceAbi; }

extern "C" X2CT_VISIBLE std::vector<std::string> x2ct_device_list() { return x2ct::cuda::list(); }

extern "C" X2CT_VISIBLE x2ct::Device* x2ct_device_open(int index) { return x2ct::cuda::open(index); }
