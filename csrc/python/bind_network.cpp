// Networks and the backends that load them.
#include "bind_network.h"

#include <dlfcn.h>
#include <pybind11/stl.h>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <mutex>

#include "bind.h"
#include "x2ct/backend.h"
#include "x2ct/device_check.h"
#include "x2ct/devices.h"
#include "x2ct/error.h"
#include "x2ct/tiling.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {

std::string library_dir() {
    Dl_info info{};
    if (dladdr(reinterpret_cast<const void*>(&library_dir), &info) == 0 || info.dli_fname == nullptr) {
        throw Error("core: can't find out where it is installed");
    }
    return (std::filesystem::absolute(info.dli_fname).parent_path() / "lib").string();
}

namespace {

std::shared_ptr<PyNetwork> load(const std::string& path, const std::string& backend, const std::string& device,
                                const std::string& precision, int threads,
                                const std::map<std::string, std::vector<std::int64_t>>& shapes,
                                const std::string& runtime_dir, const std::string& provider,
                                const std::map<std::string, std::string>& provider_options, bool profile,
                                const Int8Ranges& int8) {
    const py::gil_scoped_release release;
    Backend& opened = open_backend(backend, {library_dir(), runtime_dir});
    NetworkOptions options{path, device, precision, threads, shapes};
    options.provider = provider;
    options.provider_options = provider_options;
    options.profile = profile;
    options.int8 = int8;
    auto network = released_without_gil(opened.load(options));
    return released_without_gil(std::make_unique<PyNetwork>(std::move(network), threads));
}

py::dict tensors(const std::vector<TensorInfo>& infos) {
    py::dict dict;
    for (const TensorInfo& info : infos) dict[py::str(info.name)] = py::tuple(py::cast(info.shape));
    return dict;
}

// Checks the names and hands over each array's pointer.
py::dict call(PyNetwork& self, const py::dict& arrays) {
    if (self.network->device() != "cpu") {
        throw InputError("network: found one on device " + self.network->device() +
                         ", expected one on cpu: arrays are in the host's memory");
    }
    struct Input {
        std::string name;
        py::array held;  // the GIL is let go of below, and the dict may change
        const float* data;
        Shape shape;
    };
    std::vector<Input> inputs;
    for (const TensorInfo& info : self.network->inputs()) {
        if (!arrays.contains(info.name)) {
            throw InputError("network: " + info.name + ": found none, expected an array of shape " +
                             to_string(info.shape));
        }
        const py::array array = as_array(arrays[py::str(info.name)], "network: " + info.name);
        inputs.push_back({info.name, array, checked(array, "network: " + info.name), shape_of(array)});
    }
    if (arrays.size() != inputs.size()) {
        throw InputError("network: inputs: found " + std::to_string(arrays.size()) + " arrays, expected " +
                         std::to_string(inputs.size()) + ", by the names in .inputs");
    }
    std::unique_lock lock(self.mutex, std::defer_lock);
    {
        const py::gil_scoped_release release;
        lock.lock();
        if (!self.session) self.session = self.network->session();
        for (const Input& input : inputs) self.session->set_input(input.name, input.data, input.shape);
        self.session->evaluate();
    }
    py::dict results;
    for (const TensorInfo& info : self.network->outputs()) {
        const TensorView view = self.session->output(info.name);
        py::array_t<float> array = new_array(view.shape);
        std::copy_n(view.data, array.size(), array.mutable_data());
        results[py::str(info.name)] = array;
    }
    return results;
}

// Of the latest call: a call is what makes the session.
py::list profile(PyNetwork& self) {
    std::vector<LayerTime> layers;
    {
        const py::gil_scoped_release release;
        const std::scoped_lock lock(self.mutex);
        if (!self.session)
            throw InputError("profile: found a network that was never called, expected a call before it");
        layers = self.session->profile();
    }
    py::list list;
    for (const LayerTime& layer : layers) {
        list.append(
            py::dict("name"_a = layer.name, "type"_a = layer.type, "kernel"_a = layer.kernel, "ms"_a = layer.ms));
    }
    return list;
}

py::list backends(const std::map<std::string, std::string>& runtime_dirs) {
    std::vector<BackendStatus> all;
    {
        const py::gil_scoped_release release;
        all = backend_status(library_dir(), runtime_dirs);
    }
    py::list list;
    for (const BackendStatus& one : all) {
        list.append(py::dict("name"_a = one.name, "built"_a = one.built, "available"_a = one.available,
                             "reason"_a = one.reason, "version"_a = one.version, "devices"_a = one.devices,
                             "precisions"_a = one.precisions, "missing_devices"_a = one.missing_devices));
    }
    return list;
}

py::list devices() {
    py::list list;
    for (const DeviceStatus& one : device_status(library_dir())) {
        list.append(py::dict("name"_a = one.name, "built"_a = one.built, "available"_a = one.available,
                             "reason"_a = one.reason, "found"_a = one.found));
    }
    return list;
}

py::list check(const std::string& device) {
    std::vector<DeviceCheck> checks;
    {
        const py::gil_scoped_release release;
        checks = check_device(open_device(device, library_dir()));
    }
    py::list list;
    for (const DeviceCheck& one : checks) {
        list.append(py::dict("name"_a = one.name, "difference"_a = one.difference, "bound"_a = one.bound,
                             "passed"_a = one.passed()));
    }
    return list;
}

}  // namespace

void bind_network(py::module_& module) {
    py::class_<PyNetwork, std::shared_ptr<PyNetwork>>(module, "Network", "One network, compiled for one device.")
        .def(py::init(&load), "path"_a, "backend"_a = "openvino", "device"_a = "cpu", "precision"_a = "auto",
             "threads"_a = 0, "shapes"_a = py::dict(), "runtime_dir"_a = "", "provider"_a = "",
             "provider_options"_a = py::dict(), "profile"_a = false, "int8"_a = py::dict())
        .def("__call__", &call, "inputs"_a, "Evaluates once: float32 arrays by name in, new arrays by name out.")
        .def("profile", &profile, "The layers that ran in the latest call, of a network made with profile=True.")
        .def_property_readonly("inputs", [](const PyNetwork& self) { return tensors(self.network->inputs()); })
        .def_property_readonly("outputs", [](const PyNetwork& self) { return tensors(self.network->outputs()); })
        .def_property_readonly("device", [](const PyNetwork& self) { return self.network->device(); })
        .def_property_readonly("scratch_bytes", [](const PyNetwork& self) { return self.network->scratch_bytes(); })
        .def_property_readonly("precision", [](const PyNetwork& self) { return self.network->precision(); })
        .def_property_readonly("runtime_version",
                               [](const PyNetwork& self) { return self.network->runtime_version(); });
    module.def("backends", &backends, "runtime_dirs"_a = py::dict(),
               "Each backend and what it can do here; what is missing is a reason in the answer, never an exception.");
    module.def("devices", &devices, "Each kind of device and what there is of it here; likewise.");
    module.def("check_device", &check, "device"_a,
               "What a device's kernels compute beside the CPU's: the largest difference of each kind, and its bound.");
}

}  // namespace x2ct::python

// Plans of tiles.
namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {

void bind_tiles(py::module_& module) {
    py::class_<TilePlan>(module, "TilePlan", "One tile shape for a grid, and what it takes.")
        .def_property_readonly("grid", [](const TilePlan& self) { return py::tuple(py::cast(self.denoiser.grid)); })
        .def_property_readonly("tile", [](const TilePlan& self) { return py::tuple(py::cast(self.denoiser.tile)); })
        .def_property_readonly("halo", [](const TilePlan& self) { return self.denoiser.halo; })
        .def_property_readonly("count", [](const TilePlan& self) { return py::tuple(py::cast(self.denoiser.count())); })
        .def_property_readonly("lift_tile", [](const TilePlan& self) { return py::tuple(py::cast(self.lift.tile)); })
        .def_readonly("keep", &TilePlan::keep)
        .def_readonly("in_turn", &TilePlan::in_turn)
        .def_readonly("bytes", &TilePlan::bytes)
        .def_property_readonly("whole", &TilePlan::whole);
}

}  // namespace x2ct::python
