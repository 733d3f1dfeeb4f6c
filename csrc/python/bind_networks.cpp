// A bundle's networks, compiled for a grid.
#include "x2ct/networks.h"

#include <pybind11/stl.h>

#include <memory>
#include <utility>

#include "bind.h"
#include "bind_network.h"
#include "bind_sampler.h"
#include "x2ct/devices.h"
#include "x2ct/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
namespace {

std::shared_ptr<Networks> load(const std::string& folder, const std::string& checksum, const std::string& backend,
                               const std::string& runtime_dir, PipelineOptions options) {
    const py::gil_scoped_release release;
    Backend& opened = open_backend(backend, {library_dir(), runtime_dir});
    auto device = open_device(options.device, library_dir(), options.threads);
    return released_without_gil(
        std::make_unique<Networks>(reopen_bundle(folder, checksum), opened, std::move(options), std::move(device)));
}

// Copies of arrays whose shapes the networks are compiled for.
void condition_on(Networks& self, const py::array& views, const py::array& valid, const py::array& matrices) {
    const auto slots = static_cast<std::int64_t>(self.bundle().views.size());
    const auto& picture = self.bundle().xray;
    const auto values = [](const py::array& array, const std::string& name, const Shape& shape) {
        const float* const data = checked(array, name);
        if (shape_of(array) != shape) {
            throw InputError(name + ": shape: found " + to_string(shape_of(array)) + ", expected " + to_string(shape));
        }
        return std::vector<float>(data, data + array.size());
    };
    const Conditions ready{values(views, "views", {1, slots, 1, picture.rows, picture.columns}),
                           values(valid, "valid", {1, slots}), values(matrices, "matrices", {1, slots, 3, 4})};
    const py::gil_scoped_release release;
    self.condition_on(ready);
}

}  // namespace

void bind_networks(py::module_& module) {
    module.def("volumes_kept", &volumes_kept, "table"_a, py::kw_only(), "many"_a, "preview"_a, "consistency"_a);
    py::class_<Networks, std::shared_ptr<Networks>>(module, "Networks",
                                                    "A bundle's three networks, compiled for one grid.")
        .def(py::init([](const std::string& folder, const std::string& checksum, const std::string& backend,
                         const std::string& runtime_dir, const std::string& device, const std::string& precision,
                         int threads, const std::array<std::int64_t, 3>& shape, const std::array<double, 3>& voxel_mm,
                         std::int64_t memory, std::int64_t halo, const std::string& provider,
                         const std::map<std::string, std::string>& provider_options,
                         const std::map<std::string, std::string>& artefacts) {
                 return load(folder, checksum, backend, runtime_dir,
                             {device, precision, threads, shape, voxel_mm, memory, halo, provider, provider_options,
                              artefacts});
             }),
             "folder"_a, "checksum"_a, py::kw_only(), "backend"_a, "runtime_dir"_a, "device"_a, "precision"_a,
             "threads"_a, "shape"_a, "voxel_mm"_a, "memory"_a = 0, "halo"_a = -1, "provider"_a = "",
             "provider_options"_a = py::dict(), "artefacts"_a = py::dict())
        .def("plan", &Networks::plan, "volumes"_a, py::call_guard<py::gil_scoped_release>())
        .def("compile", &Networks::compile, "plan"_a, py::call_guard<py::gil_scoped_release>())
        .def("condition_on", &condition_on, "views"_a, "valid"_a, "matrices"_a)
        .def_property_readonly("counted", &Networks::is_counted)
        .def_property_readonly("sampler",
                               [](const Networks& self) {
                                   if (!self.sampler()) throw InputError("networks: found none compiled, call compile");
                                   return std::make_unique<PySampler>(self.sampler());
                               })
        .def_property_readonly("encoder_precision", &Networks::encoder_precision)
        .def_property_readonly("lift_precision", &Networks::lift_precision)
        .def_property_readonly("precision", &Networks::precision)
        .def_property_readonly("runtime_version", &Networks::runtime_version);
}

}  // namespace x2ct::python
