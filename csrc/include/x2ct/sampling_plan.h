// What a run is asked for, and the noise levels and table that follow from it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "x2ct/bundle.h"
#include "x2ct/evaluator.h"
#include "x2ct/sampler.h"
#include "x2ct/table.h"

namespace x2ct {

inline constexpr int kMaxSteps = 1000, kMaxSamples = 1000;
inline constexpr double kMaxGamma = 1e6;

struct SampleOptions {
    std::uint64_t seed = 0;
    std::uint32_t sample = 0;  ///< another number is another noise of the same seed
    std::optional<int> steps;  ///< along the noise schedule; none: the bundle's
    std::string solver;        ///< one of solvers(); empty is the bundle's
    /// "tuned" or one of schedules(); empty is the bundle's tuned levels for these steps, or its schedule.
    std::string schedule;
    std::vector<double> sigmas = {};  ///< falling noise levels in place of a schedule, the final 0 left out; or none
    double churn = 0;                 ///< S_churn of Heun (Karras et al. 2022): noise that it adds again on the way
    bool mean = false;                ///< the posterior mean at sigma_max: none of the five above
    std::function<void(const Progress&)> progress = {};  ///< see RunOptions; of all samples together
    /// The denoised volume after every `preview_every` evaluations, in the unit of the result.
    std::function<void(const Progress&, const float* volume)> preview = {};
    int preview_every = 1;
    const std::atomic<bool>* cancel = nullptr;
    Pause pause = {};  ///< see RunOptions
    /// When data consistency is applied: "off", "last", "every", or after the evaluations that are named, "3,5,6".
    std::string consistency = "off";
    std::optional<double> gamma;  ///< its strength, 0 to kMaxGamma, see ConsistencyOptions; none: kUsualGamma
    int samples = 1;              ///< from number `sample` on; several give their mean
    bool raw = false;             ///< volumes in the network's unit, in place of HU
    /// Called with each sample's place, from 0, and the sample, good during the call; what it throws ends the run.
    std::function<void(int sample, const float* volume)> each = {};
    /// Returns memory for a volume that `preview`, or `each` of several samples, is going to be called with: voxels()
    /// floats for a caller that keeps them, good until that call. None: memory of the pipeline's.
    std::function<float*()> memory = {};
    /// Called after each sample with data consistency: attenuation per mm of D before its first step, voxels() of them,
    /// good during the call.
    std::function<void(int sample, std::span<const float> mu)> uncorrected = {};
    /// The samples' standard deviation times `SamplingPlan::deviation_scale`, voxels() of them; null: not wanted.
    float* deviation = nullptr;
};

/// The noise levels that a run visits, and the table that takes it there.
struct SamplingPlan {
    Table table;
    std::string schedule;        ///< "tuned", one of schedules(), "explicit", or "posterior mean"
    std::vector<double> sigmas;  ///< falling, the final 0 left out
    std::vector<int> corrected;  ///< after which evaluations, from 1, data consistency is applied
    double gamma = 0;            ///< its strength
    int samples = 1;
    /// The bundle's for these steps, where solver and noise levels are the bundle's own, without churn and data
    /// consistency; else 1.
    double deviation_scale = 1;
    /// Whether the volume is the mean of the patient's and of the mirror image's: the posterior mean of a model that
    /// was trained on both, without data consistency; the X-rays may rule it out (see Pipeline::planned()).
    bool mirrored = false;

    int evaluations() const { return (mirrored ? 2 : samples) * table.evaluations(); }  ///< of all samples
};

/// Checks what is asked for and plans it; what isn't asked for is what the bundle says. Throws InputError.
SamplingPlan sampling_plan(const Bundle::Diffusion& usual, const SampleOptions& options);

}  // namespace x2ct
