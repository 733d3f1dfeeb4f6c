// A Python function as the denoiser: for tests, and for denoisers with a closed form.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "x2ct/network.h"

namespace x2ct::python {

/// function(x, sigma) -> denoised: x a float32 array of `shape` that may be read during the call only, sigma a float.
std::shared_ptr<Network> callable_network(pybind11::function function, const Shape& shape);

}  // namespace x2ct::python
