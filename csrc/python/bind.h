// python/ is the Python face of the core: one small file binds one class, and module.cpp joins them. What comes from
// NumPy is checked here, at the door; the core sees pointers and shapes.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "x2ct/bundle.h"
#include "x2ct/network.h"

namespace x2ct::python {

/// Throws InputError unless `value` is a NumPy array.
pybind11::array as_array(pybind11::handle value, const std::string& name);

/// An array that goes to the core as it is: float32, C-contiguous, aligned. Throws InputError that names it, else.
const float* checked(const pybind11::array& array, const std::string& name);

Shape shape_of(const pybind11::array& array);

/// Of a map between HU and the network's unit: HU, and x.
using Knots = std::pair<std::vector<double>, std::vector<double>>;

/// Two or more of each, x strictly increasing. Throws InputError.
Intensity checked_map(Knots knots);

/// Sizes of at least 1. Throws InputError.
Shape checked_shape(const std::vector<std::int64_t>& shape, const std::string& name);

/// A new float32 array.
pybind11::array_t<float> new_array(const Shape& shape);

/// Owns what takes its time to go (a compiled network, its scratch memory): other threads of Python run meanwhile.
template <typename Thing>
std::shared_ptr<Thing> released_without_gil(std::unique_ptr<Thing> thing) {
    return std::shared_ptr<Thing>(thing.release(), [](Thing* last) {
        if (PyGILState_Check()) {
            const pybind11::gil_scoped_release release;
            delete last;
        } else {
            delete last;
        }
    });
}

// A Python function as the denoiser: for tests, and for denoisers with a closed form.

/// function(x, sigma) -> denoised: x a float32 array of `shape` that may be read during the call only, sigma a float.
std::shared_ptr<Network> callable_network(pybind11::function function, const Shape& shape);

}  // namespace x2ct::python
