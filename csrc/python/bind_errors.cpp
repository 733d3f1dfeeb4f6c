// C++ exceptions become the classes of x2ct/errors.py.
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

}  // namespace x2ct::python
