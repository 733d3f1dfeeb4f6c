#include <algorithm>

#include "bind.h"
#include "x2ct/error.h"

namespace py = pybind11;

namespace x2ct::python {

py::array as_array(py::handle value, const std::string& name) {
    if (!py::isinstance<py::array>(value)) {
        throw InputError(name + ": found " + py::str(py::type::of(value).attr("__name__")).cast<std::string>() +
                         ", expected a NumPy array");
    }
    return py::reinterpret_borrow<py::array>(value);
}

const float* checked(const py::array& array, const std::string& name) {
    if (!py::isinstance<py::array_t<float>>(array)) {
        throw InputError(name + ": dtype: found " + py::str(array.dtype()).cast<std::string>() + ", expected float32");
    }
    const auto address = reinterpret_cast<std::uintptr_t>(array.data());
    if (!(array.flags() & py::array::c_style) || address % alignof(float) != 0) {
        throw InputError(name +
                         ": layout: found strides that aren't C's, expected C-contiguous; use numpy.ascontiguousarray");
    }
    return static_cast<const float*>(array.data());
}

Intensity checked_map(Knots knots) {
    const auto& [hu, x] = knots;
    const bool rises = std::ranges::adjacent_find(x, [](double a, double b) { return !(a < b); }) == x.end();
    if (x.size() < 2 || hu.size() != x.size() || !rises) {
        throw InputError("knots: found " + std::to_string(hu.size()) + " HU and " + std::to_string(x.size()) +
                         " x, expected two or more of each, x rising");
    }
    return {std::move(knots.first), std::move(knots.second)};
}

Shape shape_of(const py::array& array) { return Shape(array.shape(), array.shape() + array.ndim()); }

Shape checked_shape(const std::vector<std::int64_t>& shape, const std::string& name) {
    constexpr std::int64_t kMost = std::int64_t{1} << 40;  // far past any memory, far below any overflow
    std::int64_t count = 1;
    for (const std::int64_t axis : shape) {
        if (axis < 1 || axis > kMost / count) {
            throw InputError(name + ": shape: found " + to_string(shape) +
                             ", expected sizes of at least 1 that fit into memory");
        }
        count *= axis;
    }
    if (shape.empty()) throw InputError(name + ": shape: found [], expected at least one axis");
    return shape;
}

py::array_t<float> new_array(const Shape& shape) {
    return py::array_t<float>(std::vector<py::ssize_t>(shape.begin(), shape.end()));
}

}  // namespace x2ct::python
