// How the sampling loop gets D: from the network on the whole volume at once, or in another way.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "x2ct/device.h"
#include "x2ct/lift.h"
#include "x2ct/network.h"

namespace x2ct {

/// Where a run's time went, in seconds: by the host's clock, or where the device has one, for network_s and kernel_s,
/// by the device's.
struct Timings {
    int evaluations = 0;
    double network_s = 0;     ///< inside the denoiser
    double tiles_s = 0;       ///< cutting and joining tiles, and lifting them
    double correction_s = 0;  ///< in the correction
    double kernel_s = 0;      ///< in the element-wise kernels, noise included
    double gap_s = 0;         ///< the longest between two rows on the device, where it has a clock
    std::int64_t waits = 0;   ///< how often the host waited for the device
    double total_s = 0;       ///< the whole run, callbacks included
};

/// Called between tiles; what it throws ends the run.
using Pause = std::function<void()>;

/// Evaluates a denoiser on volumes of one shape. Used by one thread at a time; usable again after an exception.
class Evaluator {
  public:
    virtual ~Evaluator() = default;

    /// x's whole shape, [N, 1, X, Y, Z] for the bundled networks.
    virtual const Shape& shape() const = 0;

    /// Copies what the denoiser is conditioned on to the device; kept until it is set again. `data` is on the host.
    virtual void set_condition(const std::string& name, const float* data, const Shape& shape) = 0;

    /// All conditions, as a lift made them of the grid.
    virtual void set_lifted(std::vector<Lift::Whole> conditions) = 0;
    /// All conditions from `lift`: made once, here; or, by an evaluator that goes by tiles, for each tile whenever it
    /// is evaluated.
    virtual void set_lift(std::shared_ptr<Lift> lift) { set_lifted(lift->whole()); }

    /// Before a run with these noise levels, by row. Throws InputError if a condition is missing.
    virtual void prepare(const std::vector<float>& sigmas) = 0;

    /// denoised = D(y, sigma) for the table's `row`; both are whole volumes on the device. Adds what it took.
    virtual void evaluate(int row, const float* y, float* denoised, const Pause& pause, Timings& timings) = 0;

    /// After prepare(): says what evaluate() queues beside its arguments, the same text for the same work; empty where
    /// it does more than queue.
    virtual std::string key() const = 0;
};

/// The network on the whole volume: inputs "x" and "sigma" [N], conditions by name, output "denoised" of x's shape.
/// Throws InputError if the network's names or shapes don't fit, or if network and device don't share memory.
std::unique_ptr<Evaluator> whole_evaluator(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device,
                                           Shape shape);

}  // namespace x2ct
