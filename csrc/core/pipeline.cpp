#include "x2ct/pipeline.h"

#include <algorithm>

#include "x2ct/ensemble.h"
#include "x2ct/error.h"
#include "x2ct/schedule.h"
#include "x2ct/solver.h"

namespace x2ct {
namespace {

constexpr int kMostSteps = 1000, kMostSamples = 1000;
constexpr const char* kTuned = "tuned";

}  // namespace

Pipeline::Pipeline(Bundle bundle, Backend& backend, const PipelineOptions& options, std::shared_ptr<Device> device)
    : networks_(std::move(bundle), backend, options, std::move(device)), threads_(options.threads) {
    prepare(volumes_kept(table({}), false, false, false));
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
    networks_.compile(networks_.plan(volumes));
    if (study_) networks_.condition_on(study_->conditions);
    volumes_ = volumes;
}

void Pipeline::set_xrays(std::span<const XRay> xrays) {
    check(bundle(), xrays);
    const auto lock = enter();
    study_.reset();
    Study study{conditions_of(bundle(), xrays), {}};
    for (const XRay& xray : xrays) {
        study.views.push_back({xray.slot, xray.calibrated, measured_of(bundle(), xray)});
    }
    if (volumes_ > 0) networks_.condition_on(study.conditions);  // else the next run does
    study_ = std::move(study);
}

Table Pipeline::table(const SampleOptions& options) const {
    const Bundle::Diffusion& usual = bundle().diffusion;
    if (options.mean) {
        if (options.steps != 0 || !options.solver.empty() || !options.schedule.empty()) {
            throw InputError("mean: found steps, a solver or a schedule, expected none: it is one evaluation");
        }
        // One Euler step from sigma_max to 0 is D(sigma_max n, sigma_max), exactly: its weight on x is 0.
        return make_table("euler", {usual.sigma_max});
    }
    const std::string& solver = options.solver.empty() ? usual.solver : options.solver;
    const int steps = options.steps == 0 ? usual.steps : options.steps;
    if (steps < 1 || steps > kMostSteps) {
        throw InputError("steps: found " + std::to_string(steps) + ", expected 1 to " + std::to_string(kMostSteps));
    }
    const auto tuned = usual.schedules.find(steps);
    const bool has_tuned = tuned != usual.schedules.end();
    if (options.schedule == kTuned && !has_tuned) {
        throw InputError("schedule: found tuned, expected another: the model is not tuned for " +
                         std::to_string(steps) + " steps");
    }
    if (has_tuned && (options.schedule.empty() || options.schedule == kTuned)) return make_table(solver, tuned->second);
    const std::string& name = options.schedule.empty() ? usual.schedule : options.schedule;
    SolverOptions stepping;
    for (const SolverInfo& info : solvers()) {
        if (info.name == solver && info.timed) stepping.time = time_of(name);
    }
    return make_table(solver, schedule(name, steps, usual.sigma_min, usual.sigma_max), stepping);
}

std::shared_ptr<Consistency> Pipeline::consistency_of(const Study& study, double gamma,
                                                      std::vector<int> evaluations) const {
    const std::int64_t rows = bundle().xray.rows, columns = bundle().xray.columns, pixels = rows * columns;
    std::vector<MeasuredView> views;
    for (const auto& [slot, calibrated, measured] : study.views) {
        const float* const image = study.conditions.views.data() + slot * pixels;
        MeasuredView view{
            bundle().views[slot].name, {{}, rows, columns}, {image, image + pixels}, measured, calibrated};
        std::copy_n(study.conditions.matrices.begin() + slot * 12L, 12, view.view.matrix.begin());
        views.push_back(std::move(view));
    }
    ConsistencyOptions options;
    options.gamma = gamma;
    options.evaluations = std::move(evaluations);
    options.threads = threads_;
    return std::make_shared<Consistency>(volume_grid(grid()), attenuation_knots(bundle().intensity), std::move(views),
                                         options);
}

void Pipeline::run(const SampleOptions& options, float* hu) {
    if (options.samples < 1 || options.samples > kMostSamples) {
        throw InputError("samples: found " + std::to_string(options.samples) + ", expected 1 to " +
                         std::to_string(kMostSamples));
    }
    const Table table = this->table(options);
    const int evaluations = table.evaluations(), samples = options.samples;
    auto pulls = pulled_after(options.consistency, evaluations);
    if (options.gamma == 0) pulls.clear();
    const auto lock = enter();
    if (!study_) throw InputError("X-rays: found none, expected set_xrays before run");
    const Study& study = *study_;
    pulled_.clear();
    prepare(volumes_kept(table, samples > 1, static_cast<bool>(options.preview), !pulls.empty()));

    const auto pull = pulls.empty() ? nullptr : consistency_of(study, options.gamma, std::move(pulls));
    const std::int64_t count = voxels();
    RunOptions inner;
    inner.seed = options.seed;
    inner.cancel = options.cancel;
    inner.preview_every = options.preview_every;
    inner.correction = pull;
    inner.result_in = &bundle().intensity;
    inner.threads = threads_;
    int sample = 0;
    const auto of_all = [&](Progress now) {
        now.step += sample * evaluations;
        now.total = samples * evaluations;
        return now;
    };
    if (options.progress) inner.progress = [&](const Progress& now) { options.progress(of_all(now)); };
    std::vector<float> shown;
    if (options.preview) {
        inner.preview = [&](const Progress& now, const float* denoised) {
            shown.resize(static_cast<std::size_t>(count));
            bundle().intensity.to_hu(denoised, shown.data(), count, threads_);
            options.preview(of_all(now), shown.data());
        };
    }
    Ensemble ensemble(hu, options.deviation, count, threads_);
    for (; sample < samples; ++sample) {
        // Not touched before it is written, when the registers are gone.
        const std::unique_ptr<float[]> own(samples > 1 ? new float[static_cast<std::size_t>(count)] : nullptr);
        float* const volume = own ? own.get() : hu;
        inner.sample = options.sample + static_cast<std::uint32_t>(sample);
        networks_.sampler()->run(table, inner, volume);
        if (options.each) options.each(sample, volume);
        if (samples > 1) ensemble.add(volume);
    }
    if (samples > 1) {
        ensemble.finish();
    } else if (options.deviation != nullptr) {
        std::fill_n(options.deviation, count, 0.0F);
    }
    if (pull) pulled_ = pull->views();
}

Timings Pipeline::timings() const { return networks_.sampler() ? networks_.sampler()->timings() : Timings{}; }

}  // namespace x2ct
