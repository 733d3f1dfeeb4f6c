// The pipeline: X-rays in, a CT volume out. Everything that Python's Sampler does with a model goes through here.
#include "x2ct/pipeline.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "bind.h"
#include "bind_network.h"
#include "bind_sampler.h"
#include "x2ct/devices.h"
#include "x2ct/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
// name, slot, image, P, measured, calibrated
using PyXRay = std::tuple<std::string, int, Floats, Doubles, std::optional<Floats>, bool>;

using Schedule = std::variant<std::string, std::vector<double>>;
using When = std::variant<std::string, std::vector<int>>;

// A field of a Python object; throws TypeError for a value of another type.
template <typename Type>
Type field(const py::object& options, const char* name) {
    const py::object value = options.attr(name);
    try {
        return value.cast<Type>();
    } catch (const py::cast_error&) {
        throw py::type_error("SampleOptions." + std::string(name) + ": found " + py::repr(value).cast<std::string>());
    }
}

std::uint64_t seed_of(const py::object& seed) {
    const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(seed.ptr()));
    if (!number) throw py::error_already_set();
    const std::uint64_t value = PyLong_AsUnsignedLongLong(number.ptr());
    if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        throw InputError("--seed: found " + py::str(seed).cast<std::string>() + ", expected 0 to 2^64 - 1");
    }
    return value;
}

// x2ct.engine.options.SampleOptions, by its attributes.
SampleOptions options_of(const py::object& asked) {
    SampleOptions options;
    options.seed = seed_of(asked.attr("seed"));
    options.sample = field<std::uint32_t>(asked, "sample");
    options.steps = field<std::optional<int>>(asked, "steps");
    options.solver = field<std::optional<std::string>>(asked, "solver").value_or("");
    if (auto schedule = field<std::optional<Schedule>>(asked, "schedule")) {
        if (auto* const name = std::get_if<std::string>(&*schedule)) {
            options.schedule = std::move(*name);
        } else {
            options.sigmas = std::move(std::get<std::vector<double>>(*schedule));
            if (options.sigmas.empty()) throw InputError("--schedule: found no noise levels, expected at least one");
        }
    }
    options.mean = field<bool>(asked, "mean");
    options.churn = field<double>(asked, "churn");
    options.samples = field<int>(asked, "samples");
    const auto consistency = field<When>(asked, "consistency");
    if (const auto* const words = std::get_if<std::string>(&consistency)) {
        options.consistency = *words;
    } else {
        options.consistency.clear();
        for (const int evaluation : std::get<std::vector<int>>(consistency)) {
            options.consistency += (options.consistency.empty() ? "" : ",") + std::to_string(evaluation);
        }
    }
    options.gamma = field<std::optional<double>>(asked, "gamma");
    options.raw = field<bool>(asked, "raw");
    return options;
}

// A run's plan; its errors name options as the command line does.
template <class Plan>
SamplingPlan checked_plan(const Plan& plan) {
    try {
        return plan();
    } catch (const InputError& error) {
        const std::string text = error.what();
        const bool is_option = !text.starts_with("sigmas:") && !text.starts_with("churn:");
        throw InputError((is_option ? "--" : "") + text);
    }
}

// What the bundle says about sampling, from the attributes of a Python object that says the same.
SamplingPlan plan_of(const py::object& diffusion, const py::object& options) {
    Bundle::Diffusion usual;
    usual.sigma_min = diffusion.attr("sigma_min").cast<double>();
    usual.sigma_max = diffusion.attr("sigma_max").cast<double>();
    usual.schedule = diffusion.attr("schedule").cast<std::string>();
    usual.solver = diffusion.attr("solver").cast<std::string>();
    usual.steps = diffusion.attr("steps").cast<int>();
    for (const auto& [steps, sigmas] : py::dict(diffusion.attr("schedules"))) {
        usual.schedules[steps.cast<int>()] = sigmas.cast<std::vector<double>>();
    }
    for (const auto& [steps, scale] : py::dict(diffusion.attr("deviation_scale"))) {
        usual.deviation_scale[steps.cast<int>()] = scale.cast<double>();
    }
    usual.mirror = diffusion.attr("mirror").cast<bool>();
    const SampleOptions sampling = options_of(options);
    return checked_plan([&] { return sampling_plan(usual, sampling); });
}

std::array<double, 12> matrix_of(const std::string& name, const Doubles& array) {
    if (array.ndim() != 2 || array.shape(0) != 3 || array.shape(1) != 4) {
        throw InputError(name + ": P: shape: found " + to_string(shape_of(array)) + ", expected [3, 4]");
    }
    std::array<double, 12> matrix{};
    std::copy_n(array.data(), 12, matrix.begin());
    return matrix;
}

// They point into the arrays.
std::vector<XRay> xrays_of(const std::vector<PyXRay>& images) {
    std::vector<XRay> xrays;
    for (const auto& [name, slot, image, matrix, measured, calibrated] : images) {
        if (image.ndim() != 2 || (measured && shape_of(*measured) != shape_of(image))) {
            throw InputError(name + ": shape: found " + to_string(shape_of(image)) + " pixels" +
                             (measured ? " and " + to_string(shape_of(*measured)) + " measured" : "") +
                             ", expected two axes, and the same of both");
        }
        XRay& xray = xrays.emplace_back(XRay{slot, image.data(), image.shape(0), image.shape(1), {}});
        xray.matrix = matrix_of(name, matrix);
        xray.calibrated = calibrated;
        if (measured) xray.measured = measured->data();
        xray.name = name;
    }
    return xrays;
}

template <typename To, typename From>
py::array_t<To> array_of(const From& values, const Shape& shape) {
    py::array_t<To> array(std::vector<py::ssize_t>(shape.begin(), shape.end()));
    std::transform(values.begin(), values.end(), array.mutable_data(),
                   [](auto value) { return static_cast<To>(value); });
    return array;
}

// name, P, image, measured, calibrated: a MeasuredView as bind_consistency.cpp takes it.
py::list views_of(const std::vector<MeasuredView>& views) {
    py::list list;
    for (const MeasuredView& view : views) {
        const Shape shape = {view.view.rows, view.view.cols};
        list.append(py::make_tuple(view.name, array_of<double>(view.view.matrix, {3, 4}),
                                   array_of<float>(view.image, shape), array_of<bool>(view.measured, shape),
                                   view.calibrated));
    }
    return list;
}

// For who evaluates encoder and lift elsewhere: what they read of X-rays, by a bundle's views and the encoder's
// picture.
py::tuple conditions(const std::vector<Doubles>& matrices, const std::array<std::int64_t, 2>& shape,
                     const std::array<double, 2>& spacing_mm, const std::vector<PyXRay>& images) {
    Bundle bundle;
    bundle.xray.rows = shape[0], bundle.xray.columns = shape[1];
    bundle.xray.row_mm = spacing_mm[0], bundle.xray.column_mm = spacing_mm[1];
    for (const Doubles& matrix : matrices) {
        const std::string name = "view " + std::to_string(bundle.views.size());
        bundle.views.push_back({name, matrix_of(name, matrix), shape[0], shape[1], spacing_mm[0], spacing_mm[1]});
    }
    const std::vector<XRay> xrays = xrays_of(images);
    check(bundle, xrays);
    const Conditions made = conditions_of(bundle, xrays);
    const auto slots = static_cast<std::int64_t>(bundle.views.size());
    return py::make_tuple(array_of<float>(made.views, {1, slots, 1, shape[0], shape[1]}),
                          array_of<float>(made.valid, {1, slots}), array_of<float>(made.matrices, {1, slots, 3, 4}),
                          views_of(measured_views(bundle, xrays, made)));
}

py::object mirrored_conditions(const Floats& views, const Floats& valid, const Floats& matrices) {
    const auto numbers = [](const Floats& array) {
        return std::vector<float>(array.data(), array.data() + array.size());
    };
    Conditions conditions{numbers(views), numbers(valid), numbers(matrices)};
    if (!can_be_mirrored(conditions)) return py::none();
    const Conditions made = mirrored(std::move(conditions), views.shape(views.ndim() - 1));
    return py::make_tuple(array_of<float>(made.views, shape_of(views)),
                          array_of<float>(made.matrices, shape_of(matrices)));
}

// Where it is installed, and by when networks are compiled: the GIL is free meanwhile.
std::shared_ptr<Pipeline> open(const std::string& folder, const std::string& checksum, const std::string& backend,
                               const std::string& runtime_dir, const PipelineOptions& options,
                               const SampleOptions& first) {
    const py::gil_scoped_release release;
    Bundle bundle = reopen_bundle(folder, checksum);
    checked_plan([&] { return sampling_plan(bundle.diffusion, first); });
    Backend& opened = open_backend(backend, {library_dir(), runtime_dir});
    auto device = open_device(options.device, library_dir(), options.threads);
    return released_without_gil(
        std::make_unique<Pipeline>(std::move(bundle), opened, options, std::move(device), first));
}

void set_xrays(Pipeline& self, const std::vector<PyXRay>& images) {
    const std::vector<XRay> xrays = xrays_of(images);
    const py::gil_scoped_release release;
    self.set_xrays(xrays);
}

Shape grid_shape(const Pipeline& pipeline) { return {pipeline.grid().shape.begin(), pipeline.grid().shape.end()}; }

// One volume, or the mean and the standard deviation of several, and the plan that the run followed. What a callback is
// handed is an array of its own.
py::tuple run(Pipeline& self, const py::object& asked, const py::object& progress, const py::object& preview,
              int preview_every, const py::object& each, const py::object& uncorrected,
              const std::shared_ptr<CancelToken>& cancel) {
    SampleOptions options = options_of(asked);
    SamplingPlan plan = checked_plan([&] { return self.planned(options); });
    const Shape shape = grid_shape(self);
    py::array_t<float> volume = new_array(shape);
    std::map<const float*, py::array_t<float>> handed;  // what callbacks are going to be called with
    py::object deviation = py::none();
    if (options.samples > 1 && options.samples <= kMaxSamples) {
        py::array_t<float> array = new_array(shape);
        options.deviation = array.mutable_data();
        deviation = std::move(array);
    }
    options.memory = [&] {
        const py::gil_scoped_acquire acquire;
        py::array_t<float> array = new_array(shape);
        float* const data = array.mutable_data();
        handed.emplace(data, std::move(array));
        return data;
    };
    const auto taken = [&](const float* data) { return std::move(handed.extract(data).mapped()); };
    options.progress = between_evaluations(progress);
    options.pause = hear_signals;
    options.preview_every = preview_every;
    if (!preview.is_none()) {
        options.preview = [&](const Progress& now, const float* data) {
            const py::gil_scoped_acquire acquire;
            preview(now.step, now.total, now.sigma, taken(data));
        };
    }
    if (!each.is_none()) {
        options.each = [&](int sample, const float* data) {
            const py::gil_scoped_acquire acquire;
            each(sample, data == volume.data() ? volume : taken(data));
        };
    }
    if (!uncorrected.is_none()) {
        options.uncorrected = [&](int sample, std::span<const float> mu) {
            const py::gil_scoped_acquire acquire;
            uncorrected(sample, array_of<float>(mu, shape));
        };
    }
    if (cancel) options.cancel = &cancel->cancelled;
    float* const to = volume.mutable_data();
    {
        const py::gil_scoped_release release;
        self.run(options, to);
    }
    return py::make_tuple(std::move(volume), std::move(deviation), std::move(plan));
}

py::tuple dry_run(Pipeline& self, const py::object& asked) {
    SampleOptions options = options_of(asked);
    SamplingPlan plan = checked_plan([&] { return self.planned(options); });
    options.pause = hear_signals;
    DryRun found;
    {
        const py::gil_scoped_release release;
        found = self.dry_run(options);
    }
    return py::make_tuple(py::dict("evaluations"_a = found.evaluations, "per_evaluation_s"_a = found.per_evaluation_s),
                          std::move(plan));
}

py::dict times(const Pipeline& self) {
    const RunTimes& times = self.times();
    const Timings last = self.timings();
    return py::dict("compile_s"_a = times.compile_s, "condition_s"_a = times.condition_s, "loop_s"_a = times.loop_s,
                    "network_s"_a = times.network_s, "consistency_s"_a = times.consistency_s,
                    "kernel_s"_a = last.kernel_s, "gap_s"_a = last.gap_s, "waits"_a = last.waits);
}

py::dict consistency(const Pipeline& self) {
    const ConsistencyReport& report = self.consistency();
    py::list views;
    for (const ViewConsistency& view : report.views) {
        views.append(py::dict("view"_a = view.name, "rays"_a = view.rays, "scale"_a = view.scale,
                              "offset"_a = view.offset, "rms_before"_a = view.rms_before,
                              "rms_after"_a = view.rms_after));
    }
    return py::dict("evaluations"_a = report.evaluations, "gamma"_a = report.gamma, "closed"_a = report.closed,
                    "rounds"_a = report.rounds, "views"_a = views);
}

void bind_options(py::module_& module) {
    module.attr("MAX_STEPS") = kMaxSteps;
    module.attr("MAX_SAMPLES") = kMaxSamples;
    module.attr("MAX_GAMMA") = kMaxGamma;
    module.attr("GAMMA") = kUsualGamma;
    module.attr("AIR_INTEGRAL") = kAirIntegral;
    module.attr("FEWEST_RAYS") = kFewestRays;
    module.attr("WEAKEST_CORRELATION") = kWeakestCorrelation;
    py::class_<SamplingPlan>(module, "SamplingPlan", "The noise levels that a run visits, and its table.")
        .def_readonly("table", &SamplingPlan::table)
        .def_readonly("schedule", &SamplingPlan::schedule)
        .def_readonly("sigmas", &SamplingPlan::sigmas)
        .def_readonly("corrected", &SamplingPlan::corrected)
        .def_readonly("gamma", &SamplingPlan::gamma)
        .def_readonly("deviation_scale", &SamplingPlan::deviation_scale)
        .def_readonly("mirrored", &SamplingPlan::mirrored)
        .def_property_readonly("evaluations", &SamplingPlan::evaluations);
    module.def("sampling_plan", &plan_of, "diffusion"_a, "options"_a,
               "Checks options and plans a run; an option that is None is what the bundle says.");
    module.def("conditions", &conditions, "matrices"_a, "shape"_a, "spacing_mm"_a, "xrays"_a,
               "What encoder and lift read of X-rays.");
    module.def("mirrored_conditions", &mirrored_conditions, "views"_a, "valid"_a, "matrices"_a,
               "The same of the patient's mirror image; None where training shows no such X-rays.");
}

}  // namespace

void bind_pipeline(py::module_& module) {
    bind_options(module);
    py::class_<Pipeline, std::shared_ptr<Pipeline>>(module, "Pipeline", "One model, compiled for one device and grid.")
        .def(py::init([](const std::string& folder, const std::string& checksum, const std::string& backend,
                         const std::string& runtime_dir, const std::string& device, const std::string& precision,
                         int threads, const std::array<std::int64_t, 3>& shape, const std::array<double, 3>& voxel_mm,
                         std::int64_t memory, std::int64_t halo, const std::string& provider,
                         const std::map<std::string, std::string>& provider_options,
                         const std::map<std::string, std::string>& engines, const py::object& first) {
                 return open(
                     folder, checksum, backend, runtime_dir,
                     {device, precision, threads, shape, voxel_mm, memory, halo, provider, provider_options, engines},
                     first.is_none() ? SampleOptions() : options_of(first));
             }),
             "folder"_a, "checksum"_a, py::kw_only(), "backend"_a, "runtime_dir"_a, "device"_a, "precision"_a,
             "threads"_a, "shape"_a, "voxel_mm"_a, "memory"_a = 0, "halo"_a = -1, "provider"_a = "",
             "provider_options"_a = py::dict(), "engines"_a = py::dict(), "first"_a = py::none())
        .def("set_xrays", &set_xrays, "xrays"_a)
        .def("run", &run, "options"_a, py::kw_only(), "progress"_a = py::none(), "preview"_a = py::none(),
             "preview_every"_a = 1, "each"_a = py::none(), "uncorrected"_a = py::none(), "cancel"_a = py::none())
        .def("dry_run", &dry_run, "options"_a)
        .def_property_readonly("tiles", [](const Pipeline& self) { return self.plan(); })
        .def_property_readonly("views", [](const Pipeline& self) { return views_of(self.views()); })
        .def_property_readonly("consistency", &consistency)
        .def_property_readonly("times", &times)
        .def_property_readonly("precisions",
                               [](const Pipeline& self) {
                                   return py::dict("encoder"_a = self.encoder_precision(),
                                                   "lift"_a = self.lift_precision(), "denoiser"_a = self.precision());
                               })
        .def_property_readonly("runtime_version", &Pipeline::runtime_version);
}

}  // namespace x2ct::python
