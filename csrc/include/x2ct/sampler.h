// Many samples of one study, one after the other: their mean and spread, without keeping them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "x2ct/bundle.h"
#include "x2ct/device.h"
#include "x2ct/evaluator.h"
#include "x2ct/network.h"
#include "x2ct/table.h"

namespace x2ct {

/// The voxel-wise mean and standard deviation of volumes that come one by one (Welford 1962, Technometrics 4(3)), in
/// memory of the caller's.
class Ensemble {
  public:
    /// `squares` may be null: then there is a mean only. `threads` 0 takes all; the result does not depend on it.
    Ensemble(float* mean, float* squares, std::int64_t count, int threads = 0)
        : mean_(mean), squares_(squares), count_(count), threads_(threads) {}

    void add(const float* volume);

    /// After the last: `squares` become `scale` times the samples' standard deviation (by n - 1; zeros for one).
    void finish(float scale = 1);

    int samples() const { return samples_; }

  private:
    float* mean_;
    float* squares_;
    std::int64_t count_;
    int threads_;
    int samples_ = 0;
};

// The sampling loop: one for all solvers, networks and devices.

/// What the loop tells after each evaluation.
struct Progress {
    int step;      ///< evaluations done
    int total;     ///< of how many
    double sigma;  ///< the noise level of the one just done
};

/// What is done to D before the row is combined, such as pulling it towards the X-rays.
class Correction {
  public:
    virtual ~Correction() = default;
    /// Asked before a run: whether D is handed over where it is, in the memory of the sampler's device, on whose stream
    /// the work is then to be queued. Otherwise it is copied to the host and back.
    virtual bool works_on(const std::shared_ptr<Device>& device) { return device->stream() == nullptr; }
    /// `denoised`: D in the sampler's shape, changed in place; after the network of `row`, of `rows`, evaluated at
    /// `sigma`. What it throws ends the run.
    virtual void apply(int row, int rows, double sigma, float* denoised) = 0;
};

struct RunOptions {
    std::uint64_t seed = 0;
    std::uint32_t sample = 0;
    /// Called after each evaluation, in the thread that runs; what it throws ends the run and comes out of run().
    std::function<void(const Progress&)> progress;
    /// Called before `progress`, after every `preview_every` evaluations, with what the network makes of the volume by
    /// then: D in the sampler's shape on the host, good during the call. What it throws ends the run as above.
    std::function<void(const Progress&, const float* denoised)> preview = {};
    int preview_every = 1;
    /// The map by which the result is handed out in HU: made where the result is, before it comes to the host. Null: x.
    const Intensity* result_in = nullptr;
    int threads = 0;  ///< of the host, for that, where the device is the CPU; the result does not depend on it
    /// Looked at before each evaluation, and between tiles; true ends the run with Cancelled.
    const std::atomic<bool>* cancel = nullptr;
    /// Applied after each evaluation; none leaves D as the network says it.
    std::shared_ptr<Correction> correction = {};
    /// Called where `cancel` is looked at; what it throws ends the run.
    Pause pause = {};
    /// Queues all rows before waiting for any, and lets a device record the whole loop as one. With none of the
    /// callbacks, `cancel` or `correction`; InputError otherwise.
    bool at_once = false;
};

/// Runs tables with one denoiser: inputs "x" and "sigma" [N], conditions by name, output "denoised" of x's shape.
///
/// After an exception it can be used again. A second run while one is going on is refused with Error.
class Sampler {
  public:
    /// `shape` is x's whole shape, [N, 1, X, Y, Z] for the bundled networks. Throws InputError if the network's names
    /// or shapes don't fit, or if network and device don't share memory.
    Sampler(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device, Shape shape);

    /// The same with another way to D, such as tile by tile.
    Sampler(std::unique_ptr<Evaluator> evaluator, std::shared_ptr<Device> device);

    const Shape& shape() const { return evaluator_->shape(); }

    /// Copies what the denoiser is conditioned on to the device; kept until it is set again. `data` is on the host.
    void set_condition(const std::string& name, const float* data, const Shape& shape);

    /// Conditions from a lift; see Evaluator.
    void set_lifted(std::vector<Lift::Whole> conditions);
    void set_lift(std::shared_ptr<Lift> lift);

    /// Runs the table and writes the last x, of the sampler's shape, or its HU, to `out` on the host.
    void run(const Table& table, const RunOptions& options, float* out);

    /// Of the latest run that ended well.
    Timings timings() const;

  private:
    std::unique_lock<std::mutex> enter() const;

    std::unique_ptr<Evaluator> evaluator_;
    std::shared_ptr<Device> device_;
    std::int64_t count_;
    Timings timings_;
    mutable std::mutex mutex_;
};

}  // namespace x2ct
