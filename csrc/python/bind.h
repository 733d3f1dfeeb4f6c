// python/ is the Python face of the core: one small file binds one class, and module.cpp joins them. What comes from
// NumPy is checked here, at the door; the core sees pointers and shapes.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace x2ct::python {

void bind_errors(pybind11::module_& module);

}  // namespace x2ct::python

void bind_projector(pybind11::module_& module);
