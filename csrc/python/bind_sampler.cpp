// The sampling loop.
#include "x2ct/sampler.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>

#include "bind.h"
#include "bind_network.h"
#include "bind_sampler.h"
#include "callable.h"
#include "x2ct/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
namespace {

// Between evaluations: signals first, so that Ctrl-C ends a run, then the caller's progress.
std::function<void(const Progress&)> between_evaluations(const py::object& progress) {
    return [&progress](const Progress& now) {
        const py::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (!progress.is_none()) progress(now.step, now.total, now.sigma);
    };
}

// Hands over a copy of D, in HU where there are knots, which the caller may keep.
std::function<void(const Progress&, const float*)> shown(const py::object& preview, const std::optional<Knots>& knots,
                                                         const Shape& shape) {
    if (preview.is_none()) return {};
    std::optional<Intensity> map;
    if (knots) map = checked_map(*knots);
    return [&preview, &shape, map = std::move(map)](const Progress& now, const float* denoised) {
        const py::gil_scoped_acquire acquire;
        py::array_t<float> copy = new_array(shape);
        if (map) {
            map->to_hu(denoised, copy.mutable_data(), copy.size(), 0);
        } else {
            std::copy_n(denoised, copy.size(), copy.mutable_data());
        }
        preview(now.step, now.total, now.sigma, std::move(copy));
    };
}

// What a run may be told beside its table.
struct PyRun {
    std::uint64_t seed;
    std::uint32_t sample;
    const py::object& progress;
    const std::shared_ptr<CancelToken>& cancel;
    const py::object& preview;
    int preview_every;
    const std::optional<Knots>& preview_in;
    const std::shared_ptr<Correction>& correction;
    const std::optional<Knots>& result_in;
    bool at_once = false;
};

// Runs and returns x with `shape`, which may leave out axes of 1 that the network's x has.
py::array_t<float> run(Sampler& sampler, const Shape& shape, const Table& table, const PyRun& asked) {
    py::array_t<float> volume = new_array(shape);
    float* const to = volume.mutable_data();
    RunOptions options;
    options.seed = asked.seed;
    options.sample = asked.sample;
    options.at_once = asked.at_once;
    if (!asked.at_once || !asked.progress.is_none()) options.progress = between_evaluations(asked.progress);
    options.preview = shown(asked.preview, asked.preview_in, shape);
    options.preview_every = asked.preview_every;
    options.correction = asked.correction;
    std::optional<Intensity> map;
    if (asked.result_in) map = checked_map(*asked.result_in);
    if (map) options.result_in = &*map;
    if (!asked.at_once) {
        options.pause = [] {
            const py::gil_scoped_acquire acquire;
            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        };
    }
    if (asked.cancel) options.cancel = &asked.cancel->cancelled;
    const py::gil_scoped_release release;
    sampler.run(table, options, to);
    return volume;
}

py::dict timings(const PySampler& sampler) {
    const Timings t = sampler.timings();
    return py::dict("evaluations"_a = t.evaluations, "network_s"_a = t.network_s, "tiles_s"_a = t.tiles_s,
                    "correction_s"_a = t.correction_s, "kernel_s"_a = t.kernel_s, "gap_s"_a = t.gap_s,
                    "waits"_a = t.waits, "total_s"_a = t.total_s);
}

py::array_t<float> run_callable(const py::function& denoiser, const Table& table,
                                const std::vector<std::int64_t>& shape, std::uint64_t seed, std::uint32_t sample,
                                const py::object& progress, const std::shared_ptr<CancelToken>& cancel, int threads,
                                const py::object& preview, int preview_every, const std::optional<Knots>& preview_in,
                                const std::shared_ptr<Correction>& correction, const std::optional<Knots>& result_in) {
    const Shape checked = checked_shape(shape, "run");
    Sampler sampler(callable_network(denoiser, checked), cpu_device(threads), checked);
    return run(sampler, checked, table,
               {seed, sample, progress, cancel, preview, preview_every, preview_in, correction, result_in});
}

}  // namespace

PySampler::PySampler(std::shared_ptr<Sampler> sampler)
    : shape_(sampler->shape().begin() + 2, sampler->shape().end()), sampler_(std::move(sampler)) {}

void PySampler::set_condition(const py::dict& arrays) {
    const py::dict held = arrays.attr("copy")();  // the GIL is let go of below
    for (const auto& [key, value] : held) {
        const auto name = py::str(key).cast<std::string>();
        const py::array array = as_array(value, "condition " + name);
        const float* const data = checked(array, "condition " + name);
        const Shape shape = shape_of(array);
        const py::gil_scoped_release release;
        sampler_->set_condition(name, data, shape);
    }
}

py::array_t<float> PySampler::run(const Table& table, std::uint64_t seed, std::uint32_t sample,
                                  const py::object& progress, const std::shared_ptr<CancelToken>& cancel,
                                  const py::object& preview, int preview_every, const std::optional<Knots>& preview_in,
                                  const std::shared_ptr<Correction>& correction, const std::optional<Knots>& result_in,
                                  bool at_once) {
    return python::run(
        *sampler_, shape_, table,
        {seed, sample, progress, cancel, preview, preview_every, preview_in, correction, result_in, at_once});
}

void bind_sampler(py::module_& module) {
    py::class_<CancelToken, std::shared_ptr<CancelToken>>(module, "CancelToken", "Ends a run from another thread.")
        .def(py::init())
        .def("cancel", [](CancelToken& self) { self.cancelled = true; })
        .def_property_readonly("cancelled", [](const CancelToken& self) { return self.cancelled.load(); });
    py::class_<PySampler>(module, "Sampler", "The sampling loop over one denoiser, for volumes of one shape.")
        .def(py::init([](const PyNetwork& denoiser, const std::vector<std::int64_t>& shape, int threads) {
                 Shape whole = {1, 1};
                 std::ranges::copy(checked_shape(shape, "sampler"), std::back_inserter(whole));
                 auto device = cpu_device(threads > 0 ? threads : denoiser.threads);
                 return std::make_unique<PySampler>(released_without_gil(
                     std::make_unique<Sampler>(denoiser.network, std::move(device), std::move(whole))));
             }),
             "denoiser"_a, "shape"_a, "threads"_a = 0)
        .def("set_condition", &PySampler::set_condition, "arrays"_a)
        .def("run", &PySampler::run, "table"_a, "seed"_a, "sample"_a = 0, "progress"_a = py::none(),
             "cancel"_a = py::none(), "preview"_a = py::none(), "preview_every"_a = 1, "preview_in"_a = py::none(),
             "correction"_a = py::none(), "result_in"_a = py::none(), "at_once"_a = false)
        .def_property_readonly("shape", [](const PySampler& self) { return py::tuple(py::cast(self.shape())); })
        .def_property_readonly("timings", &timings);
    module.def("run", &run_callable, "denoiser"_a, "table"_a, "shape"_a, "seed"_a, "sample"_a = 0,
               "progress"_a = py::none(), "cancel"_a = py::none(), "threads"_a = 0, "preview"_a = py::none(),
               "preview_every"_a = 1, "preview_in"_a = py::none(), "correction"_a = py::none(),
               "result_in"_a = py::none(),
               "The same loop with a Python function (x, sigma) -> denoised as the network.");
}

}  // namespace x2ct::python
