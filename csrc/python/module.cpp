// C++ exceptions become the classes of x2ct/errors.py.
#include <pybind11/pybind11.h>
#include <cstring>
#include <exception>
#include <new>

#include "bind.h"
#include "x2ct/error.h"

namespace py = pybind11;

namespace x2ct::python {
namespace {

void raise(const char* name, const char* text) {
    py::object type = py::module_::import("x2ct.errors").attr(name);
    // Names of files may be no UTF-8.
    const auto message = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(std::strlen(text)), "replace"));
    PyErr_SetObject(type.ptr(), message.ptr());
}

void translate(std::exception_ptr pointer) {
    try {
        if (pointer) std::rethrow_exception(pointer);
    } catch (const InputError& error) {
        raise("InputError", error.what());
    } catch (const MissingRuntime& error) {
        raise("MissingRuntimeError", error.what());
    } catch (const OutOfMemory& error) {
        raise("MemoryLimitError", error.what());
    } catch (const Cancelled& error) {
        raise("Cancelled", error.what());
    } catch (const Error& error) {
        raise("X2CTError", error.what());
    } catch (const std::bad_alloc&) {
        raise("MemoryLimitError", "out of memory on the host");
    }
}

}  // namespace

void bind_errors(py::module_&) { py::register_local_exception_translator(translate); }

// The module x2ct._core: one file binds one class, and this one joins them.

void bind_errors(pybind11::module_& module);
void bind_schedule(pybind11::module_& module);
void bind_table(pybind11::module_& module);
void bind_noise(pybind11::module_& module);
void bind_network(pybind11::module_& module);
void bind_plan(pybind11::module_& module);
void bind_consistency(pybind11::module_& module);
void bind_tiles(pybind11::module_& module);
void bind_sampler(pybind11::module_& module);
void bind_bundle(pybind11::module_& module);
void bind_pipeline(pybind11::module_& module);
void bind_picture(pybind11::module_& module);

}  // namespace x2ct::python

void bind_projector(pybind11::module_& module);

PYBIND11_MODULE(_core, module) {
    module.doc() =
        "The C++ core of x2ct: the pipeline, bundles, views, schedules, solvers, noise, networks and the projector.";
    x2ct::python::bind_errors(module);
    x2ct::python::bind_schedule(module);
    x2ct::python::bind_table(module);
    x2ct::python::bind_noise(module);
    x2ct::python::bind_network(module);
    x2ct::python::bind_plan(module);
    x2ct::python::bind_consistency(module);
    x2ct::python::bind_tiles(module);
    x2ct::python::bind_sampler(module);
    x2ct::python::bind_bundle(module);
    x2ct::python::bind_pipeline(module);
    x2ct::python::bind_picture(module);
    bind_projector(module);
}
