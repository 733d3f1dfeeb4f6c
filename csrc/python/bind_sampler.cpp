// The sampling loop.
#include "x2ct/sampler.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "bind.h"
#include "bind_network.h"
#include "bind_sampler.h"
#include "x2ct/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
void hear_signals() {
    const py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

std::function<void(const Progress&)> between_evaluations(const py::object& progress) {
    return [&progress](const Progress& now) {
        const py::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (!progress.is_none()) progress(now.step, now.total, now.sigma);
    };
}

namespace {

// What a run may be given beside its table.
struct PyRun {
    std::uint64_t seed;
    std::uint32_t sample;
    const py::object& progress;
    const std::shared_ptr<CancelToken>& cancel;
    const py::object& preview;
    int preview_every;
};

// Runs and returns x with `shape`, which may leave out axes of 1 that the network's x has.
py::array_t<float> run(Sampler& sampler, const Shape& shape, const Table& table, const PyRun& asked) {
    py::array_t<float> volume = new_array(shape);
    float* const to = volume.mutable_data();
    RunOptions options;
    options.seed = asked.seed;
    options.sample = asked.sample;
    options.progress = between_evaluations(asked.progress);
    options.preview_every = asked.preview_every;
    options.pause = hear_signals;
    if (!asked.preview.is_none()) {
        options.preview = [&](const Progress& now, const float* denoised) {
            const py::gil_scoped_acquire acquire;
            py::array_t<float> copy = new_array(shape);
            std::copy_n(denoised, copy.size(), copy.mutable_data());
            asked.preview(now.step, now.total, now.sigma, std::move(copy));
        };
    }
    if (asked.cancel) options.cancel = &asked.cancel->cancelled;
    const py::gil_scoped_release release;
    sampler.run(table, options, to);
    return volume;
}

// One volume [X, Y, Z], x of shape [1, 1, X, Y, Z].
class PySampler {
  public:
    PySampler(const PyNetwork& denoiser, const std::vector<std::int64_t>& shape, int threads)
        : shape_(checked_shape(shape, "sampler")) {
        Shape whole = {1, 1};
        std::ranges::copy(shape_, std::back_inserter(whole));
        auto device = cpu_device(threads > 0 ? threads : denoiser.threads);
        sampler_ =
            released_without_gil(std::make_unique<Sampler>(denoiser.network, std::move(device), std::move(whole)));
    }

    void set_condition(const py::dict& arrays) {
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

    py::array_t<float> run(const Table& table, std::uint64_t seed, std::uint32_t sample, const py::object& progress,
                           const std::shared_ptr<CancelToken>& cancel, const py::object& preview, int preview_every) {
        return python::run(*sampler_, shape_, table, {seed, sample, progress, cancel, preview, preview_every});
    }

    const Shape& shape() const { return shape_; }

    py::dict timings() const {
        const Timings t = sampler_->timings();
        return py::dict("evaluations"_a = t.evaluations, "network_s"_a = t.network_s, "tiles_s"_a = t.tiles_s,
                        "correction_s"_a = t.correction_s, "kernel_s"_a = t.kernel_s, "gap_s"_a = t.gap_s,
                        "waits"_a = t.waits, "total_s"_a = t.total_s);
    }

  private:
    Shape shape_;
    std::shared_ptr<Sampler> sampler_;
};

py::array_t<float> run_callable(const py::function& denoiser, const Table& table,
                                const std::vector<std::int64_t>& shape, std::uint64_t seed, std::uint32_t sample,
                                const py::object& progress, const std::shared_ptr<CancelToken>& cancel, int threads,
                                const py::object& preview, int preview_every) {
    const Shape checked = checked_shape(shape, "run");
    Sampler sampler(callable_network(denoiser, checked), cpu_device(threads), checked);
    return run(sampler, checked, table, {seed, sample, progress, cancel, preview, preview_every});
}

}  // namespace

void bind_sampler(py::module_& module) {
    py::class_<CancelToken, std::shared_ptr<CancelToken>>(module, "CancelToken", "Ends a run from another thread.")
        .def(py::init())
        .def("cancel", [](CancelToken& self) { self.cancelled = true; })
        .def_property_readonly("cancelled", [](const CancelToken& self) { return self.cancelled.load(); });
    py::class_<PySampler>(module, "Sampler", "The sampling loop over one denoiser, for volumes of one shape.")
        .def(py::init<const PyNetwork&, const std::vector<std::int64_t>&, int>(), "denoiser"_a, "shape"_a,
             "threads"_a = 0)
        .def("set_condition", &PySampler::set_condition, "arrays"_a)
        .def("run", &PySampler::run, "table"_a, "seed"_a, "sample"_a = 0, "progress"_a = py::none(),
             "cancel"_a = py::none(), "preview"_a = py::none(), "preview_every"_a = 1)
        .def_property_readonly("shape", [](const PySampler& self) { return py::tuple(py::cast(self.shape())); })
        .def_property_readonly("timings", &PySampler::timings);
    module.def("run", &run_callable, "denoiser"_a, "table"_a, "shape"_a, "seed"_a, "sample"_a = 0,
               "progress"_a = py::none(), "cancel"_a = py::none(), "threads"_a = 0, "preview"_a = py::none(),
               "preview_every"_a = 1, "The same loop with a Python function (x, sigma) -> denoised as the network.");
}

}  // namespace x2ct::python
