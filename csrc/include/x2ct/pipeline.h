// From X-rays to a CT volume: a bundle's three networks and the sampler, for whoever embeds x2ct without Python.
#pragma once

#include <cstdint>
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
#include "x2ct/sampling_plan.h"
#include "x2ct/xray.h"

namespace x2ct {

/// Where a run's time went, in seconds.
struct RunTimes {
    double compile_s = 0;      ///< compiling the networks anew, where the run keeps more volumes than the last
    double condition_s = 0;    ///< encoder and lift, where that made it necessary
    double loop_s = 0;         ///< the sampling loop of all samples, with the two below
    double network_s = 0;      ///< evaluations of the denoiser
    double consistency_s = 0;  ///< data consistency
};

/// What data consistency did in a run; no views where it was off.
struct ConsistencyReport {
    std::vector<int> evaluations;  ///< after which it was applied, from 1
    double gamma = 0;
    bool closed = false;  ///< whether it had the closed form
    int rounds = 0;
    std::vector<ViewConsistency> views;  ///< one an X-ray
};

/// What a run would take, by its first evaluations.
struct DryRun {
    int evaluations = 0;          ///< of all samples
    double per_evaluation_s = 0;  ///< seconds of one
};

/// One model, compiled for one device and one grid. Its methods may be called from any thread, one at a time: another
/// call meanwhile is refused with Error. After an exception it can be used again.
class Pipeline {
  public:
    /// Compiles the three networks for runs like `first`. `device` is the one that options.device names; null: the CPU.
    /// Throws InputError, MissingRuntime, OutOfMemory.
    Pipeline(Bundle bundle, Backend& backend, const PipelineOptions& options = {},
             std::shared_ptr<Device> device = nullptr, const SampleOptions& first = {});
    ~Pipeline();

    const Bundle& bundle() const { return networks_.bundle(); }
    const Bundle::Grid& grid() const { return networks_.grid(); }
    std::string precision() const { return networks_.precision(); }  ///< what the denoiser computes in
    std::string encoder_precision() const { return networks_.encoder_precision(); }
    std::string lift_precision() const { return networks_.lift_precision(); }  ///< "" before set_xrays()
    std::string runtime_version() const { return networks_.runtime_version(); }
    std::int64_t voxels() const;

    /// How the denoiser goes over the grid. Where memory is counted, a run that keeps more volumes than the last may
    /// change it.
    const TilePlan& plan() const { return networks_.compiled(); }

    /// Runs encoder and lift on one X-ray or more, each in a slot of its own. Throws InputError.
    void set_xrays(std::span<const XRay> xrays);

    /// The X-rays as the networks see them, in the order of set_xrays(); none before it.
    const std::vector<MeasuredView>& views() const;

    /// What run() would do: sampling_plan(), without the mirror image where can_be_mirrored() says no of the X-rays.
    SamplingPlan planned(const SampleOptions& options) const;

    /// One volume, or the mean of several, float32 HU [X, Y, Z], z fastest, voxels() of them, patient mm with the
    /// origin at the grid's centre. The same X-rays, options and seed give the same bits. Throws InputError (also
    /// before set_xrays), Cancelled, OutOfMemory, Error, and what a callback throws.
    void run(const SampleOptions& options, float* volume);

    /// Runs the first two evaluations and throws their result away. Of the callbacks, `pause` and `cancel` are used.
    /// Throws as run() does.
    DryRun dry_run(const SampleOptions& options);

    /// Of the latest run.
    const ConsistencyReport& consistency() const { return corrected_; }
    const RunTimes& times() const { return times_; }

    /// Of the latest sample.
    Timings timings() const;

  private:
    /// X-rays as they are kept: for a plan that changes, and for consistency.
    struct Study {
        Conditions conditions;
        std::vector<MeasuredView> views;
    };

    std::unique_lock<std::mutex> enter();
    void prepare(int volumes);
    void condition(bool mirrored);
    std::shared_ptr<Consistency> begin(const SampleOptions& options, const SamplingPlan& plan);

    Networks networks_;
    int threads_;
    int volumes_ = 0;  // that the networks are compiled for
    std::optional<Study> study_;
    bool mirrored_ = false;  // whether the networks were last told of the mirror image
    ConsistencyReport corrected_;
    RunTimes times_;
    std::mutex mutex_;
};

}  // namespace x2ct
