// What the CUDA runtime says, as errors of the family.
#pragma once

#include <cuda_runtime_api.h>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "devices/cuda/graph.h"
#include "devices/cuda/memory.h"
#include "kernels/row.h"
#include "x2ct/device.h"

namespace x2ct::cuda {

/// Throws OutOfMemory, MissingRuntime or Error that says what was being done, unless all is well.
void check(cudaError_t status, const char* doing);

// The device itself, as its library's door and the tests see it.

class Stream {
  public:
    Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream();
    cudaStream_t handle() const { return handle_; }

  private:
    cudaStream_t handle_ = nullptr;
};

class Cuda : public Device {
  public:
    explicit Cuda(int index);
    Cuda(const Cuda&) = delete;
    Cuda& operator=(const Cuda&) = delete;
    ~Cuda() override;

    std::string name() const override;
    float* allocate(std::size_t count) override;
    void release(float* memory) noexcept override;
    void upload(float* to, const float* from_host, std::size_t count) override;
    void download(float* to_host, const float* from, std::size_t count) override;
    void run(const RowKernel& kernel) override;
    void run(const RayKernel& kernel) override;
    void copy(const BoxCopy& box) override;

    void* stream() const override { return stream_.handle(); }
    std::optional<std::int64_t> free_bytes() const override;
    void begin(std::span<const RowKernel> rows) override;
    void row(int row, const std::string& key, const std::function<void()>& work) override;
    void forget() noexcept override;
    int ahead() const override { return 1; }
    void wait(int row) override;
    void drain() noexcept override;
    std::int64_t waits() const override { return waits_ + staging_.waits(); }
    std::optional<DeviceTimes> times() override;

  private:
    static int on(int index);
    const Graph& recorded(const std::string& key, const std::function<void()>& work);

    int index_;
    Stream stream_;
    Pool pool_;
    Staging staging_;
    Clock clock_;
    kernels::RowProgram* table_ = nullptr;  // from the pool
    std::size_t table_rows_ = 0;
    std::map<std::string, Graph> graphs_;
    bool warm_ = false;       // whether something that can be recorded was done once without
    bool recording_ = false;  // now
    std::int64_t waits_ = 0;
};

/// What GPUs there are. Throws MissingRuntime where there is none to be had.
std::vector<std::string> list();

/// Throws MissingRuntime for a GPU that is too old.
Device* open(int index);

}  // namespace x2ct::cuda
