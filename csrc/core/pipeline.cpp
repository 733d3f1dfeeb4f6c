#include "x2ct/pipeline.h"

#include <algorithm>
#include <exception>

#include "core/stopwatch.h"
#include "x2ct/error.h"
#include "x2ct/sampler.h"

namespace x2ct {
namespace {

int volumes_of(const SamplingPlan& plan, const SampleOptions& options) {
    return volumes_kept(plan.table, plan.mirrored || plan.samples > 1, static_cast<bool>(options.preview),
                        !plan.corrected.empty());
}

// A sample's progress as that of all samples.
Progress of_all(Progress now, int sample, int samples) {
    return {now.step + sample * now.total, samples * now.total, now.sigma};
}

// Exchanges left and right.
void reverse_x(float* volume, const std::array<std::int64_t, 3>& shape) {
    const std::int64_t plane = shape[1] * shape[2];
    for (std::int64_t x = 0; x < shape[0] / 2; ++x) {
        std::swap_ranges(volume + x * plane, volume + (x + 1) * plane, volume + (shape[0] - 1 - x) * plane);
    }
}

// Ends a dry run.
struct Enough : std::exception {};

}  // namespace

Pipeline::Pipeline(Bundle bundle, Backend& backend, const PipelineOptions& options, std::shared_ptr<Device> device,
                   const SampleOptions& first)
    : networks_(std::move(bundle), backend, options, std::move(device)), threads_(options.threads) {
    prepare(volumes_of(sampling_plan(this->bundle().diffusion, first), first));
}

Pipeline::~Pipeline() = default;

std::int64_t Pipeline::voxels() const {
    const auto& [x, y, z] = grid().shape;
    return x * y * z;
}

std::unique_lock<std::mutex> Pipeline::enter() {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) throw Error("pipeline: busy: a call is going on; wait for it, or make a second pipeline");
    return lock;
}

// Networks that are compiled for runs that keep so many volumes, and know the X-rays.
void Pipeline::prepare(int volumes) {
    if (volumes_ == volumes || (volumes_ > 0 && !networks_.is_counted())) return;
    volumes_ = 0;  // what follows may fail half-way
    timed(times_.compile_s, [&] { networks_.compile(networks_.plan(volumes)); });
    if (study_) condition(false);
    volumes_ = volumes;
}

// Tells the networks of the X-rays, or of those of the patient's mirror image.
void Pipeline::condition(bool mirror) {
    mirrored_ = true;  // they may be left half told
    timed(times_.condition_s, [&] {
        networks_.condition_on(mirror ? mirrored(study_->conditions, bundle().xray.columns) : study_->conditions);
    });
    mirrored_ = mirror;
}

void Pipeline::set_xrays(std::span<const XRay> xrays) {
    check(bundle(), xrays);
    const auto lock = enter();
    study_.reset();
    Study study{conditions_of(bundle(), xrays), {}};
    study.views = measured_views(bundle(), xrays, study.conditions);
    if (volumes_ > 0) networks_.condition_on(study.conditions);  // else the next run does
    study_ = std::move(study);
    mirrored_ = false;
    if (xrays.size() < bundle().views.size()) {
        networks_.log(LogLevel::info, "X-rays: found " + std::to_string(xrays.size()) + " of the model's " +
                                          std::to_string(bundle().views.size()) + " views");
    }
}

const std::vector<MeasuredView>& Pipeline::views() const {
    static const std::vector<MeasuredView> kNone;
    return study_ ? study_->views : kNone;
}

// What a run needs beside its plan: networks that are compiled for it, and data consistency; null where it is off.
std::shared_ptr<Consistency> Pipeline::begin(const SampleOptions& options, const SamplingPlan& plan) {
    if (!study_) throw InputError("X-rays: found none, expected set_xrays before run");
    corrected_ = {};
    times_ = {};
    networks_.log(LogLevel::info, "run: solver " + plan.table.solver() + ", schedule " + plan.schedule + ", " +
                                      std::to_string(plan.evaluations()) + " evaluations, seed " +
                                      std::to_string(options.seed));
    prepare(volumes_of(plan, options));
    if (mirrored_) condition(false);
    if (plan.corrected.empty()) return nullptr;
    ConsistencyOptions wanted;
    wanted.gamma = plan.gamma;
    wanted.evaluations = plan.corrected;
    wanted.threads = threads_;
    return std::make_shared<Consistency>(volume_grid(grid()), attenuation_knots(bundle().intensity), views(), wanted);
}

SamplingPlan Pipeline::planned(const SampleOptions& options) const {
    SamplingPlan plan = sampling_plan(bundle().diffusion, options);
    plan.mirrored = plan.mirrored && study_ && can_be_mirrored(study_->conditions);
    return plan;
}

void Pipeline::run(const SampleOptions& options, float* volume) {
    const SamplingPlan plan = planned(options);
    const auto lock = enter();
    const auto correction = begin(options, plan);
    const std::int64_t count = voxels();
    RunOptions inner;
    inner.seed = options.seed;
    inner.cancel = options.cancel;
    inner.pause = options.pause;
    inner.preview_every = options.preview_every;
    inner.correction = correction;
    inner.result_in = options.raw ? nullptr : &bundle().intensity;
    inner.threads = threads_;
    const int volumes = plan.mirrored ? 2 : plan.samples;
    int sample = 0;
    if (options.progress) {
        inner.progress = [&](const Progress& now) { options.progress(of_all(now, sample, volumes)); };
    }
    std::vector<float> shown;
    if (options.preview) {
        inner.preview = [&](const Progress& now, const float* denoised) {
            if (mirrored_) return;
            const float* handed = denoised;
            if (options.memory || !options.raw) {
                if (!options.memory) shown.resize(static_cast<std::size_t>(count));
                float* const to = options.memory ? options.memory() : shown.data();
                if (options.raw) {
                    std::copy_n(denoised, count, to);
                } else {
                    bundle().intensity.to_hu(denoised, to, count, threads_);
                }
                handed = to;
            }
            options.preview(of_all(now, sample, volumes), handed);
        };
    }
    Ensemble ensemble(volume, plan.samples > 1 ? options.deviation : nullptr, count, threads_);
    for (; sample < volumes; ++sample) {
        std::unique_ptr<float[]> own;
        float* one = volume;
        if (plan.samples > 1 && options.each && options.memory) {
            one = options.memory();
        } else if (volumes > 1) {
            own.reset(new float[static_cast<std::size_t>(count)]);  // not touched before the registers are gone
            one = own.get();
        }
        if (plan.mirrored && sample == 1) condition(true);
        inner.sample = options.sample + static_cast<std::uint32_t>(sample);
        timed(times_.loop_s, [&] { networks_.sampler()->run(plan.table, inner, one); });
        const Timings timings = networks_.sampler()->timings();
        times_.network_s += timings.network_s;
        times_.consistency_s += timings.correction_s;
        if (correction && options.uncorrected) options.uncorrected(sample, correction->uncorrected());
        if (mirrored_) reverse_x(one, grid().shape);
        if (volumes > 1) ensemble.add(one);
        if (options.each && !plan.mirrored) options.each(sample, one);  // may be the owner of the memory, and its last
    }
    if (volumes > 1) ensemble.finish(static_cast<float>(plan.deviation_scale));
    if (plan.samples == 1 && options.deviation != nullptr) std::fill_n(options.deviation, count, 0.0F);
    if (options.each && plan.mirrored) options.each(0, volume);
    if (correction) {
        corrected_ = {plan.corrected, plan.gamma, correction->is_closed_form(), correction->rounds(),
                      correction->views()};
    }
}

DryRun Pipeline::dry_run(const SampleOptions& options) {
    const SamplingPlan plan = planned(options);
    const auto lock = enter();
    DryRun result{plan.evaluations(), 0};
    RunOptions inner;
    inner.seed = options.seed;
    inner.sample = options.sample;
    inner.cancel = options.cancel;
    inner.pause = options.pause;
    inner.correction = begin(options, plan);
    inner.threads = threads_;
    Stopwatch clock;
    inner.progress = [&](const Progress& now) {
        result.per_evaluation_s = clock.seconds();
        clock = {};
        if (now.step == 2) throw Enough();
    };
    const std::unique_ptr<float[]> unused(new float[static_cast<std::size_t>(voxels())]);
    try {
        networks_.sampler()->run(plan.table, inner, unused.get());
    } catch (const Enough&) {
        return result;
    }
    return result;
}

Timings Pipeline::timings() const { return networks_.sampler() ? networks_.sampler()->timings() : Timings{}; }

}  // namespace x2ct
