#include "x2ct/x2ct.h"

#include <dlfcn.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include "capi/guard.h"
#include "capi/handles.h"
#include "x2ct/devices.h"
#include "x2ct/networks.h"
#include "x2ct/schedule.h"
#include "x2ct/view.h"

using x2ct::capi::guarded;
using x2ct::capi::needed;
using x2ct::capi::taken;
using x2ct::capi::text_or;

namespace {

// The first version of each struct in this ABI: no program's is shorter.
constexpr std::size_t kLeastSamplerOptions = offsetof(x2ct_sampler_options, provider);
constexpr std::size_t kLeastRunOptions = offsetof(x2ct_run_options, churn);

x2ct_sampler_options sampler_defaults() {
    x2ct_sampler_options options{};
    options.struct_size = sizeof options;
    options.backend = options.device = options.precision = "auto";
    options.halo = -1;
    return options;
}

x2ct_run_options run_defaults() {
    x2ct_run_options options{};
    options.struct_size = sizeof options;
    options.preview_every = 1;
    options.consistency = "off";
    options.gamma = x2ct::kUsualGamma;
    options.samples = 1;
    return options;
}

// The folder x2ct beside the library or program that this code is in.
std::string library_dir() {
    Dl_info info{};
    if (dladdr(reinterpret_cast<const void*>(&x2ct_version), &info) == 0 || info.dli_fname == nullptr) {
        throw x2ct::Error("library_dir: can't find out where x2ct is installed; name the folder");
    }
    return (std::filesystem::absolute(info.dli_fname).parent_path() / "x2ct").string();
}

std::string library_dir_or(const char* given) { return given == nullptr ? library_dir() : given; }

x2ct::Backend& backend(const std::string& name, const char* library, const char* runtime) {
    return x2ct::open_backend(name, {library_dir_or(library), text_or(runtime, "")});
}

// What "auto" is on a device.
std::string backend_name(const char* given, const std::string& device) {
    std::string wanted = text_or(given, "auto");
    if (wanted != "auto") return wanted;
    return device == "cpu" ? "openvino" : "onnxruntime";
}

x2ct::Detector detector_of(const x2ct_detector* given) {
    needed(given, "detector");
    x2ct::Detector detector{given->rows, given->columns, given->row_mm, given->column_mm, {}};
    std::copy_n(given->isocentre_mm, 3, detector.isocentre_mm.begin());
    return detector;
}

std::shared_ptr<x2ct::Device> device(const x2ct_sampler_options& given) {
    const std::string wanted = text_or(given.device, "auto");
    return x2ct::open_device(wanted == "auto" ? "cpu" : wanted, library_dir_or(given.library_dir), given.threads);
}

x2ct::PipelineOptions pipeline_options(const x2ct_sampler_options& given, const std::string& device) {
    x2ct::PipelineOptions options;
    options.device = device;
    options.precision = text_or(given.precision, "auto");
    options.threads = given.threads;
    std::ranges::copy(given.shape, options.shape.begin());
    std::ranges::copy(given.voxel_mm, options.voxel_mm.begin());
    options.memory = given.memory;
    options.halo = given.halo;
    options.provider = text_or(given.provider, "");
    if (given.log != nullptr) {
        options.log = [call = given.log, user = given.log_user_data](x2ct::LogLevel level, const std::string& line) {
            call(user, level == x2ct::LogLevel::info ? X2CT_LOG_INFO : X2CT_LOG_WARNING, line.c_str());
        };
    }
    return options;
}

// What was chosen where the caller left it open, before anything is loaded.
void log_choice(const x2ct::PipelineOptions& options, const std::string& backend, const x2ct_sampler_options& given) {
    if (!options.log) return;
    const auto by = [](const char* wanted) { return text_or(wanted, "auto") == "auto" ? " (auto)" : ""; };
    options.log(x2ct::LogLevel::info,
                "device " + options.device + by(given.device) + ", backend " + backend + by(given.backend));
    for (const auto& [graph, path] : options.engines) {
        options.log(x2ct::LogLevel::info, std::string("engine: ").append(path).append(" in place of ").append(graph));
    }
}

void list(x2ct_named call, void* user, const std::vector<std::string>& names) {
    for (const std::string& name : names) needed(call, "call")(user, name.c_str(), "");
}

// What a callback that isn't 0 means.
void go_on(int answer) {
    if (answer != 0) throw x2ct::Cancelled("cancelled");
}

x2ct::SampleOptions sample_options(const x2ct_run_options& given, std::size_t count) {
    x2ct::SampleOptions options;
    options.seed = given.seed;
    options.sample = given.sample;
    if (given.steps != 0) options.steps = given.steps;
    options.solver = text_or(given.solver, "");
    options.schedule = text_or(given.schedule, "");
    options.mean = given.mean != 0;
    options.churn = given.churn;
    options.raw = given.raw != 0;
    if (given.sigmas != nullptr) {
        if (given.sigma_count < 1 || given.sigma_count > x2ct::kMaxSteps) {
            throw x2ct::InputError("sigma_count: found " + std::to_string(given.sigma_count) + ", expected 1 to " +
                                   std::to_string(x2ct::kMaxSteps));
        }
        options.sigmas.assign(given.sigmas, given.sigmas + given.sigma_count);
    }
    options.preview_every = given.preview_every;
    if (given.cancel != nullptr) options.cancel = &given.cancel->cancelled;
    options.consistency = text_or(given.consistency, "off");
    if (options.consistency != "off") options.gamma = given.gamma;
    options.samples = given.samples;
    options.deviation = given.deviation;
    void* const user = given.user_data;
    if (given.progress != nullptr) {
        options.progress = [call = given.progress, user](const x2ct::Progress& now) {
            go_on(call(user, now.step, now.total, now.sigma));
        };
    }
    if (given.preview != nullptr) {
        options.preview = [call = given.preview, user, count](const x2ct::Progress& now, const float* shown) {
            go_on(call(user, now.step, now.total, now.sigma, shown, count));
        };
    }
    if (given.each != nullptr) {
        options.each = [call = given.each, user, count](int sample, const float* hu) {
            go_on(call(user, sample, hu, count));
        };
    }
    return options;
}

}  // namespace

const char* x2ct_version(void) { return X2CT_VERSION; }

uint32_t x2ct_abi(void) { return X2CT_ABI; }

const char* x2ct_status_text(x2ct_status status) {
    switch (status) {
        case X2CT_OK:
            return "done";
        case X2CT_FAILED:
            return "failed while running";
        case X2CT_BAD_INPUT:
            return "wrong use or bad input";
        case X2CT_MISSING_RUNTIME:
            return "a runtime, device or precision is missing";
        case X2CT_OUT_OF_MEMORY:
            return "out of memory";
        case X2CT_CANCELLED:
            return "cancelled";
    }
    return "unknown status";
}

const char* x2ct_last_error(void) { return x2ct::capi::last_error().c_str(); }

x2ct_status x2ct_parallel_view(double angle_deg, const x2ct_detector* detector, double matrix[12]) {
    return guarded([&] {
        const auto view = x2ct::parallel_view("parallel", angle_deg, detector_of(detector));
        std::ranges::copy(view.matrix, needed(matrix, "matrix"));
    });
}

x2ct_status x2ct_cone_view(double angle_deg, double sod_mm, double sdd_mm, const x2ct_detector* detector,
                           double matrix[12]) {
    return guarded([&] {
        const auto view = x2ct::cone_view("cone", angle_deg, sod_mm, sdd_mm, detector_of(detector));
        std::ranges::copy(view.matrix, needed(matrix, "matrix"));
    });
}

x2ct_status x2ct_list_solvers(x2ct_named call, void* user_data) {
    return guarded([&] {
        std::vector<std::string> names;
        for (const x2ct::SolverInfo& one : x2ct::solvers()) names.push_back(one.name);
        list(call, user_data, names);
    });
}

x2ct_status x2ct_list_schedules(x2ct_named call, void* user_data) {
    return guarded([&] { list(call, user_data, x2ct::schedules()); });
}

x2ct_status x2ct_list_backends(const char* library, x2ct_named call, void* user_data) {
    return guarded([&] {
        needed(call, "call");
        for (const x2ct::BackendStatus& one : x2ct::backend_status(library_dir_or(library), {})) {
            call(user_data, one.name.c_str(), one.reason.c_str());
        }
    });
}

x2ct_status x2ct_list_devices(const char* library, x2ct_named call, void* user_data) {
    return guarded([&] {
        needed(call, "call");
        for (const x2ct::DeviceStatus& one : x2ct::device_status(library_dir_or(library))) {
            if (one.name == "cpu" || one.found.empty()) call(user_data, one.name.c_str(), one.reason.c_str());
            for (std::size_t k = 0; one.name != "cpu" && k < one.found.size(); ++k) {
                call(user_data, (one.name + ":" + std::to_string(k)).c_str(), "");
            }
        }
    });
}

x2ct_status x2ct_check_bundle(const char* bundle) {
    return guarded([&] { x2ct::open_bundle(needed(bundle, "bundle")); });
}

x2ct_status x2ct_sampler_options_init(x2ct_sampler_options* options, size_t struct_size, uint32_t abi) {
    return guarded([&] { x2ct::capi::init(options, struct_size, abi, kLeastSamplerOptions, sampler_defaults()); });
}

x2ct_status x2ct_check_backend(const char* name, const char* library, const char* runtime) {
    return guarded([&] { backend(backend_name(name, "cpu"), library, runtime); });
}

x2ct_status x2ct_sampler_open(const x2ct_sampler_options* options, x2ct_sampler** sampler) {
    return guarded([&] {
        *needed(sampler, "sampler") = nullptr;
        const auto asked = taken(options, kLeastSamplerOptions, sampler_defaults());
        x2ct::Bundle bundle = x2ct::open_bundle(needed(asked.bundle, "bundle"));
        const auto on = device(asked);
        const std::string name = backend_name(asked.backend, on->name());
        x2ct::PipelineOptions options = pipeline_options(asked, on->name());
        x2ct::use_engines(options, bundle, name, text_or(asked.engines, ""), asked.trust != 0);
        log_choice(options, name, asked);
        x2ct::Backend& opened = backend(name, asked.library_dir, asked.runtime_dir);
        auto pipeline = std::make_unique<x2ct::Pipeline>(std::move(bundle), opened, options, on);
        *sampler = std::make_unique<x2ct_sampler>(std::move(pipeline)).release();
    });
}

void x2ct_sampler_close(x2ct_sampler* sampler) {
    guarded([&] { delete sampler; });
}

x2ct_status x2ct_sampler_grid(const x2ct_sampler* sampler, int64_t shape[3], double spacing_mm[3]) {
    return guarded([&] {
        const auto& grid = needed(sampler, "sampler")->pipeline->grid();
        if (shape != nullptr) std::ranges::copy(grid.shape, shape);
        if (spacing_mm != nullptr) std::ranges::copy(grid.spacing_mm, spacing_mm);
    });
}

x2ct_status x2ct_sampler_tiles(const x2ct_sampler* sampler, int64_t tile[3], int64_t count[3]) {
    return guarded([&] {
        const auto& tiling = needed(sampler, "sampler")->pipeline->plan().denoiser;
        if (tile != nullptr) std::ranges::copy(tiling.tile, tile);
        if (count != nullptr) std::ranges::copy(tiling.count(), count);
    });
}

x2ct_status x2ct_sampler_views(const x2ct_sampler* sampler, int32_t* count) {
    return guarded([&] {
        *needed(count, "count") = static_cast<int32_t>(needed(sampler, "sampler")->pipeline->bundle().views.size());
    });
}

x2ct_status x2ct_sampler_view(const x2ct_sampler* sampler, int32_t slot, x2ct_detector* detector, double matrix[12]) {
    return guarded([&] {
        const auto& views = needed(sampler, "sampler")->pipeline->bundle().views;
        if (slot < 0 || static_cast<std::size_t>(slot) >= views.size()) {
            throw x2ct::InputError("slot: found " + std::to_string(slot) + ", expected 0 to " +
                                   std::to_string(views.size() - 1));
        }
        const x2ct::View& view = views[slot];
        if (detector != nullptr) *detector = {view.rows, view.columns, view.row_mm, view.column_mm, {0, 0, 0}};
        if (matrix != nullptr) std::ranges::copy(view.matrix, matrix);
    });
}

const char* x2ct_sampler_precision(const x2ct_sampler* sampler) {
    return sampler == nullptr ? nullptr : sampler->precision.c_str();
}

x2ct_status x2ct_sampler_set_xrays(x2ct_sampler* sampler, const x2ct_xray* xrays, size_t count) {
    return guarded([&] {
        needed(sampler, "sampler");
        std::vector<x2ct::XRay> all;
        for (const x2ct_xray& given : std::span(count == 0 ? xrays : needed(xrays, "xrays"), count)) {
            auto& xray = all.emplace_back(x2ct::XRay{given.slot, given.line_integrals, given.rows, given.columns, {}});
            xray.calibrated = given.uncalibrated == 0;
            if (given.matrix != nullptr) std::copy_n(given.matrix, 12, xray.matrix.emplace().begin());
        }
        check(sampler->pipeline->bundle(), all);  // before that many pixels are read
        std::vector<std::vector<float>> shares;
        for (std::size_t k = 0; k < count; ++k) {
            const std::uint8_t* const measured = xrays[k].measured;
            if (measured == nullptr) continue;
            auto& share = shares.emplace_back(static_cast<std::size_t>(all[k].rows * all[k].columns));
            std::transform(measured, measured + share.size(), share.begin(),
                           [](std::uint8_t seen) { return seen == 0 ? 0.0F : 1.0F; });
            all[k].measured = share.data();
        }
        sampler->pipeline->set_xrays(all);
    });
}

x2ct_cancel* x2ct_cancel_create(void) { return new (std::nothrow) x2ct_cancel; }

void x2ct_cancel_now(x2ct_cancel* token) {
    if (token != nullptr) token->cancelled = true;
}

void x2ct_cancel_free(x2ct_cancel* token) { delete token; }

x2ct_status x2ct_run_options_init(x2ct_run_options* options, size_t struct_size, uint32_t abi) {
    return guarded([&] { x2ct::capi::init(options, struct_size, abi, kLeastRunOptions, run_defaults()); });
}

x2ct_status x2ct_sampler_run(x2ct_sampler* sampler, const x2ct_run_options* options, float* hu, size_t count) {
    return guarded([&] {
        x2ct::Pipeline& pipeline = *needed(sampler, "sampler")->pipeline;
        needed(hu, "hu");
        if (count != static_cast<std::size_t>(pipeline.voxels())) {
            throw x2ct::InputError("count: found " + std::to_string(count) + ", expected the grid's " +
                                   std::to_string(pipeline.voxels()) + " voxels");
        }
        const auto asked = options == nullptr ? run_defaults() : taken(options, kLeastRunOptions, run_defaults());
        pipeline.run(sample_options(asked, count), hu);
    });
}

x2ct_status x2ct_sampler_pull(const x2ct_sampler* sampler, int32_t slot, x2ct_pull* pull) {
    return guarded([&] {
        const x2ct::Pipeline& pipeline = *needed(sampler, "sampler")->pipeline;
        needed(pull, "pull");
        const auto& views = pipeline.bundle().views;
        for (const x2ct::ViewConsistency& view : pipeline.consistency().views) {
            if (slot >= 0 && static_cast<std::size_t>(slot) < views.size() && views[slot].name == view.name) {
                *pull = {view.rays, view.scale, view.offset, view.rms_before, view.rms_after};
                return;
            }
        }
        throw x2ct::InputError("slot: found " + std::to_string(slot) +
                               ", expected one whose X-ray the latest run was pulled towards");
    });
}
