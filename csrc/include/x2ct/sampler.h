// The sampling loop: one for all solvers, networks and devices.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "x2ct/device.h"
#include "x2ct/network.h"
#include "x2ct/table.h"

namespace x2ct {

/// What the loop tells after each evaluation.
struct Progress {
    int step;      ///< evaluations done
    int total;     ///< of how many
    double sigma;  ///< the noise level of the one just done
};

struct RunOptions {
    std::uint64_t seed = 0;
    std::uint32_t sample = 0;
    /// Called after each evaluation, in the thread that runs; what it throws ends the run and comes out of run().
    std::function<void(const Progress&)> progress;
    /// Looked at before each evaluation; true ends the run with Cancelled.
    const std::atomic<bool>* cancel = nullptr;
};

/// Where a run's time went, in seconds.
struct Timings {
    int evaluations = 0;
    double network_s = 0;  ///< inside the network
    double kernel_s = 0;   ///< in the element-wise kernels, noise included
    double total_s = 0;    ///< the whole run, callbacks included
};

/// Runs tables with one denoiser: inputs "x" and "sigma" [N], conditions by name, output "denoised" of x's shape.
///
/// After an exception it can be used again. A second run while one is going on is refused with Error.
class Sampler {
  public:
    /// `shape` is x's whole shape, [N, 1, X, Y, Z] for the bundled networks. Throws InputError if the network's names
    /// or shapes don't fit, or if network and device don't share memory.
    Sampler(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device, Shape shape);

    const Shape& shape() const { return shape_; }

    /// Copies what the denoiser is conditioned on to the device; kept until it is set again. `data` is on the host.
    void set_condition(const std::string& name, const float* data, const Shape& shape);

    /// Runs the table and writes the last x, of the sampler's shape, to `out` on the host.
    void run(const Table& table, const RunOptions& options, float* out);

    /// Of the latest run that ended well.
    Timings timings() const;

  private:
    struct Registers;

    std::unique_lock<std::mutex> enter() const;
    Session& session();
    void check_conditions() const;
    void start(const Table& table, const RunOptions& options, Registers& registers);
    void step(const Table& table, int row, const RunOptions& options, Registers& registers);

    std::shared_ptr<Network> denoiser_;
    std::shared_ptr<Device> device_;
    Shape shape_;
    std::int64_t count_;
    Shape sigma_shape_;
    struct Condition {
        Shape shape;
        Buffer buffer;
    };
    std::map<std::string, Condition> conditions_;
    std::unique_ptr<Session> session_;
    Timings timings_;
    mutable std::mutex mutex_;
};

}  // namespace x2ct
