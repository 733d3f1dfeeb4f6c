// From X-rays to a CT volume: a bundle's three networks and the sampler, for whoever embeds x2ct without Python.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "x2ct/backend.h"
#include "x2ct/bundle.h"
#include "x2ct/consistency.h"
#include "x2ct/networks.h"
#include "x2ct/sampler.h"
#include "x2ct/xray.h"

namespace x2ct {

struct SampleOptions {
    std::uint64_t seed = 0;
    std::uint32_t sample = 0;  ///< another number is another noise of the same seed
    int steps = 0;             ///< along the noise schedule; 0 is the bundle's
    std::string solver;        ///< one of solvers(); empty is the bundle's
    /// "tuned" or one of schedules(); empty is the bundle's tuned levels for these steps, or its schedule.
    std::string schedule;
    bool mean = false;                              ///< the posterior mean, one evaluation: none of the three above
    std::function<void(const Progress&)> progress;  ///< see RunOptions; of all samples together
    std::function<void(const Progress&, const float* hu)> preview = {};  ///< what the network makes of it so far, in HU
    int preview_every = 1;
    const std::atomic<bool>* cancel = nullptr;
    /// When D is pulled towards the X-rays: "off", "last", "every", or after the evaluations that are named, "3,5,6".
    std::string consistency = "off";
    double gamma = kUsualGamma;  ///< how strongly; see ConsistencyOptions
    int samples = 1;             ///< from number `sample` on; several give their mean
    /// Called with each sample's place, from 0, and the sample, good during the call; what it throws ends the run.
    std::function<void(int sample, const float* hu)> each = {};
    float* deviation = nullptr;  ///< the samples' standard deviation in HU, voxels() of them; null: not wanted
};

/// One model, compiled for one device and one grid. Its methods may be called from any thread, one at a time: another
/// call meanwhile is refused with Error. After an exception it can be used again.
class Pipeline {
  public:
    /// Compiles the three networks. `device` is the one that options.device names; null: the CPU. Throws InputError,
    /// MissingRuntime, OutOfMemory.
    Pipeline(Bundle bundle, Backend& backend, const PipelineOptions& options = {},
             std::shared_ptr<Device> device = nullptr);
    ~Pipeline();

    const Bundle& bundle() const { return networks_.bundle(); }
    const Bundle::Grid& grid() const { return networks_.grid(); }
    std::string precision() const { return networks_.precision(); }  ///< what the denoiser computes in
    std::int64_t voxels() const;

    /// How the denoiser goes over the grid. Where memory is counted, a run that keeps more volumes than the last may
    /// change it.
    const TilePlan& plan() const { return networks_.compiled(); }

    /// Runs encoder and lift on one X-ray or more, each in a slot of its own. Throws InputError.
    void set_xrays(std::span<const XRay> xrays);

    /// One volume, or the mean of several, float32 HU [X, Y, Z], z fastest, voxels() of them, patient mm with the
    /// origin at the grid's centre. The same X-rays, options and seed give the same bits. Throws InputError (also
    /// before set_xrays), Cancelled, OutOfMemory, Error, and what a callback throws.
    void run(const SampleOptions& options, float* hu);

    /// What run() would run.
    Table table(const SampleOptions& options) const;

    /// What consistency did in the latest run, a view an X-ray; none where it was off.
    const std::vector<ViewConsistency>& consistency() const { return pulled_; }

    /// Of the latest sample.
    Timings timings() const;

  private:
    /// X-rays as they are kept: for a plan that changes, and for consistency.
    struct Study {
        Conditions conditions;
        struct View {
            int slot;
            bool calibrated;
            std::vector<std::uint8_t> measured;
        };
        std::vector<View> views;
    };

    std::unique_lock<std::mutex> enter();
    void prepare(int volumes);
    std::shared_ptr<Consistency> consistency_of(const Study& study, double gamma, std::vector<int> evaluations) const;

    Networks networks_;
    int threads_;
    int volumes_ = 0;  // that the networks are compiled for
    std::optional<Study> study_;
    std::vector<ViewConsistency> pulled_;
    std::mutex mutex_;
};

}  // namespace x2ct
