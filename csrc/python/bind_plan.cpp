// Plans: what a backend builds ahead of loading a network.
#include "x2ct/tiling.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <array>
#include <utility>

#include "bind.h"
#include "bind_network.h"
#include "x2ct/backend.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
namespace {

using Range = std::array<std::vector<std::int64_t>, 3>;

std::pair<std::string, std::string> plan_machine(const std::string& backend, const std::string& device,
                                                 const std::string& runtime_dir) {
    const py::gil_scoped_release release;
    const Backend& opened = open_backend(backend, {library_dir(), runtime_dir});
    return {opened.version(), opened.plan_device(device)};
}

// TensorRT calls from its own threads, and Ctrl-C is looked at where it does.
std::function<bool(const std::string&, int, int)> told(const py::object& progress) {
    return [&progress](const std::string& phase, int step, int steps) {
        const py::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        return progress.is_none() || progress(phase, step, steps).cast<bool>();
    };
}

void build_plan(const std::string& path, const std::string& output, const std::map<std::string, Range>& profile,
                const std::string& backend, const std::string& device, const std::string& precision,
                std::int64_t workspace_bytes, int effort, const std::string& timing_cache, const py::object& progress,
                const std::string& runtime_dir) {
    PlanOptions options;
    options.path = path;
    options.output = output;
    options.device = device;
    options.precision = precision;
    for (const auto& [name, range] : profile) options.profile[name] = {range[0], range[1], range[2]};
    options.workspace_bytes = workspace_bytes;
    options.effort = effort;
    options.timing_cache = timing_cache;
    options.progress = told(progress);
    const py::gil_scoped_release release;
    open_backend(backend, {library_dir(), runtime_dir}).build(options);
}

}  // namespace

void bind_plan(py::module_& module) {
    module.def("plan_machine", &plan_machine, "backend"_a, "device"_a, "runtime_dir"_a = "",
               "What a backend's plan depends on: the runtime's version; the device's name, and what of it counts.");
    module.def("build_plan", &build_plan, "path"_a, "output"_a, "profile"_a, py::kw_only(), "backend"_a, "device"_a,
               "precision"_a, "workspace_bytes"_a = 0, "effort"_a = 3, "timing_cache"_a = "", "progress"_a = py::none(),
               "runtime_dir"_a = "", "Builds a plan of a network, which `Network` takes as a path.");
}

}  // namespace x2ct::python
