#include "x2ct/pipeline.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "x2ct/device.h"
#include "x2ct/error.h"
#include "x2ct/picture.h"
#include "x2ct/schedule.h"
#include "x2ct/solver.h"

namespace x2ct {
namespace {

constexpr double kCoordinateUnitMm = 100;  // the networks take patient mm divided by this
constexpr int kMostSteps = 1000;
constexpr const char* kTuned = "tuned";

Shape grid_shape(const Bundle& bundle, std::initializer_list<std::int64_t> leading) {
    Shape shape(leading);
    shape.insert(shape.end(), bundle.grid.shape.begin(), bundle.grid.shape.end());
    return shape;
}

Shape views_shape(const Bundle& bundle) {
    return {1, static_cast<std::int64_t>(bundle.views.size()), 1, bundle.xray.rows, bundle.xray.columns};
}

// Each voxel's centre in patient mm / 100, [1, 3, X, Y, Z].
std::vector<float> coordinates(const Bundle& bundle) {
    const auto [nx, ny, nz] = bundle.grid.shape;
    std::array<std::vector<float>, 3> axes;
    for (int axis = 0; axis < 3; ++axis) {
        const std::int64_t count = bundle.grid.shape[axis];
        for (std::int64_t i = 0; i < count; ++i) {
            const double index = static_cast<double>(i) - static_cast<double>(count - 1) / 2;
            axes[axis].push_back(static_cast<float>(index * bundle.grid.spacing_mm[axis] / kCoordinateUnitMm));
        }
    }
    std::vector<float> coords;
    coords.reserve(static_cast<std::size_t>(3 * nx * ny * nz));
    for (int axis = 0; axis < 3; ++axis) {
        for (std::int64_t x = 0; x < nx; ++x) {
            for (std::int64_t y = 0; y < ny; ++y) {
                if (axis == 2) {
                    coords.insert(coords.end(), axes[2].begin(), axes[2].end());
                } else {
                    coords.insert(coords.end(), static_cast<std::size_t>(nz), axis == 0 ? axes[0][x] : axes[1][y]);
                }
            }
        }
    }
    return coords;
}

[[noreturn]] void fail(const XRay& xray, const std::string& what) {
    throw InputError("X-ray in slot " + std::to_string(xray.slot) + ": " + what);
}

void check(const XRay& xray, const Bundle& bundle) {
    if (xray.slot < 0 || xray.slot >= static_cast<int>(bundle.views.size())) {
        fail(xray, "slot: expected 0 to " + std::to_string(bundle.views.size() - 1) + ", the bundle's views");
    }
    if (xray.line_integrals == nullptr) fail(xray, "line_integrals: found none, expected rows x columns numbers");
    const View& own = bundle.views[xray.slot];
    const std::string found = std::to_string(xray.rows) + " x " + std::to_string(xray.columns);
    View view = own;
    view.rows = xray.rows, view.columns = xray.columns;
    if (xray.matrix) {
        view.matrix = *xray.matrix;
        x2ct::check(view);
    } else if (xray.rows != own.rows || xray.columns != own.columns) {
        fail(xray, "shape: found " + found + " without a matrix, expected " + std::to_string(own.rows) + " x " +
                       std::to_string(own.columns) + ", the bundle's view " + own.name);
    }
    for (std::int64_t i = 0; i < xray.rows * xray.columns; ++i) {
        // Noise around air, and more than metal across a whole body.
        if (!(xray.line_integrals[i] >= -1 && xray.line_integrals[i] <= 100)) {
            fail(xray, "values: found " + std::to_string(xray.line_integrals[i]) +
                           ", expected line integrals of attenuation, -1 to 100");
        }
    }
}

}  // namespace

Pipeline::Pipeline(Bundle bundle, Backend& backend, const PipelineOptions& options) : bundle_(std::move(bundle)) {
    const auto compile = [&](const Graph& graph, const std::string& precision, std::map<std::string, Shape> shapes) {
        return std::shared_ptr<Network>(
            backend.load({bundle_.file_of(graph), options.device, precision, options.threads, std::move(shapes)}));
    };
    const auto slots = static_cast<std::int64_t>(bundle_.views.size());
    const Shape valid = {1, slots};
    encoder_ = compile(bundle_.encoder, "f32", {{"views", views_shape(bundle_)}, {"valid", valid}});
    const Shape features = encoder_->outputs().front().shape;
    lift_ = compile(
        bundle_.lift, "f32",
        {{"features", features}, {"P", {1, slots, 3, 4}}, {"coords", grid_shape(bundle_, {1, 3})}, {"valid", valid}});
    const Shape x = grid_shape(bundle_, {1, 1});
    std::map<std::string, Shape> shapes = {{"x", x}, {"sigma", {1}}};
    for (const TensorInfo& condition : lift_->outputs()) shapes[condition.name] = condition.shape;
    denoiser_ = compile(bundle_.denoiser, options.precision, std::move(shapes));
    encode_ = encoder_->session();
    lift_once_ = lift_->session();
    sampler_ = std::make_unique<Sampler>(denoiser_, cpu_device(options.threads), x);
}

Pipeline::~Pipeline() = default;

std::int64_t Pipeline::voxels() const { return volume_of(grid_shape(bundle_, {})); }

std::unique_lock<std::mutex> Pipeline::enter() {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) throw Error("pipeline: busy: a call is going on; wait for it, or make a second pipeline");
    return lock;
}

void Pipeline::set_xrays(std::span<const XRay> xrays) {
    if (xrays.empty()) throw InputError("X-rays: found none, expected at least one");
    std::set<int> slots;
    for (const XRay& xray : xrays) {
        check(xray, bundle_);
        if (!slots.insert(xray.slot).second) fail(xray, "slot: found it twice, expected a slot for each X-ray");
    }
    const auto lock = enter();
    conditioned_ = false;  // what follows may fail half-way
    condition(xrays);
    conditioned_ = true;
}

void Pipeline::condition(std::span<const XRay> xrays) {
    const std::int64_t rows = bundle_.xray.rows, columns = bundle_.xray.columns;
    const Shape shape = views_shape(bundle_), valid_shape = {1, shape[1]}, matrices_shape = {1, shape[1], 3, 4};
    std::vector<float> views(static_cast<std::size_t>(volume_of(shape)));
    std::vector<float> valid(bundle_.views.size()), matrices;
    std::vector<std::array<double, 12>> seen;
    seen.reserve(bundle_.views.size());
    for (const View& view : bundle_.views) seen.push_back(view.matrix);
    for (const XRay& xray : xrays) {
        const Picture picture =
            onto_grid(xray.line_integrals, {xray.rows, xray.columns}, xray.matrix.value_or(seen[xray.slot]),
                      {rows, columns}, {bundle_.xray.row_mm, bundle_.xray.column_mm});
        std::ranges::copy(picture.pixels, views.begin() + xray.slot * rows * columns);
        seen[xray.slot] = picture.matrix;
        valid[xray.slot] = 1;
    }
    for (const auto& matrix : seen) {
        for (const double value : matrix) matrices.push_back(static_cast<float>(value));
    }
    encode_->set_input("views", views.data(), shape);
    encode_->set_input("valid", valid.data(), valid_shape);
    encode_->evaluate();
    const TensorView features = encode_->output("features");
    const std::vector<float> coords = coordinates(bundle_);
    lift_once_->set_input("features", features.data, features.shape);
    lift_once_->set_input("P", matrices.data(), matrices_shape);
    lift_once_->set_input("coords", coords.data(), grid_shape(bundle_, {1, 3}));
    lift_once_->set_input("valid", valid.data(), valid_shape);
    lift_once_->evaluate();
    for (const TensorInfo& info : lift_->outputs()) {
        const TensorView condition = lift_once_->output(info.name);
        sampler_->set_condition(info.name, condition.data, condition.shape);
    }
}

Table Pipeline::table(const SampleOptions& options) const {
    const Bundle::Diffusion& usual = bundle_.diffusion;
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

void Pipeline::run(const SampleOptions& options, float* hu) {
    const Table table = this->table(options);
    const auto lock = enter();
    if (!conditioned_) throw InputError("X-rays: found none, expected set_xrays before run");
    RunOptions inner;
    inner.seed = options.seed;
    inner.sample = options.sample;
    inner.progress = options.progress;
    inner.cancel = options.cancel;
    inner.preview_every = options.preview_every;
    std::vector<float> shown;
    if (options.preview) {
        inner.preview = [&](const Progress& now, const float* denoised) {
            shown.assign(denoised, denoised + voxels());
            bundle_.intensity.to_hu(shown.data(), voxels());
            options.preview(now, shown.data());
        };
    }
    sampler_->run(table, inner, hu);
    bundle_.intensity.to_hu(hu, voxels());
}

}  // namespace x2ct
