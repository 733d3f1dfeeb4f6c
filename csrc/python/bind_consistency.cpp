// Which rays lie in the grid, and the map between the network's unit and HU.
#include "x2ct/consistency.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <tuple>

#include "bind.h"
#include "x2ct/bundle.h"
#include "x2ct/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Bools = py::array_t<bool, py::array::c_style | py::array::forcecast>;
// name, P, image, measured, calibrated
using PyView = std::tuple<std::string, Doubles, Floats, Bools, bool>;

template <std::size_t Count>
std::array<double, Count> matrix(const Doubles& array, py::ssize_t rows, const std::string& name) {
    if (array.ndim() != 2 || array.shape(0) != rows || array.shape(1) != 4) {
        throw InputError(name + ": shape: found " + to_string(shape_of(array)) + ", expected [" + std::to_string(rows) +
                         ", 4]");
    }
    std::array<double, Count> result{};
    std::copy_n(array.data(), Count, result.begin());
    return result;
}

VolumeGrid grid_of(const std::array<std::int64_t, 3>& shape, const Doubles& index_to_mm) {
    checked_shape({shape.begin(), shape.end()}, "consistency");
    return {shape, matrix<16>(index_to_mm, 4, "consistency: index_to_mm")};
}

std::vector<MeasuredView> views_of(const std::vector<PyView>& views) {
    std::vector<MeasuredView> result;
    for (const auto& [name, p, image, measured, calibrated] : views) {
        const std::string what = "consistency: " + name;
        if (image.ndim() != 2 || shape_of(measured) != shape_of(image)) {
            throw InputError(what + ": shape: found " + to_string(shape_of(image)) + " pixels and " +
                             to_string(shape_of(measured)) + " measured, expected two axes and the same");
        }
        const DetectorView detector{matrix<12>(p, 3, what + ": P"), image.shape(0), image.shape(1)};
        result.push_back({name,
                          detector,
                          {image.data(), image.data() + image.size()},
                          {measured.data(), measured.data() + measured.size()},
                          calibrated});
    }
    return result;
}

std::vector<py::array_t<bool>> within(const std::array<std::int64_t, 3>& shape, const Doubles& index_to_mm,
                                      const std::vector<PyView>& views, int threads) {
    const std::vector<MeasuredView> measured = views_of(views);
    const auto found = rays_within(grid_of(shape, index_to_mm), measured, threads);
    std::vector<py::array_t<bool>> result;
    for (std::size_t k = 0; k < found.size(); ++k) {
        py::array_t<bool> mask({measured[k].view.rows, measured[k].view.cols});
        std::transform(found[k].begin(), found[k].end(), mask.mutable_data(), [](auto counts) { return counts != 0; });
        result.push_back(std::move(mask));
    }
    return result;
}

py::array_t<float> in_hu(std::vector<double> hu, std::vector<double> x, const py::array& values, int threads) {
    const float* const given = checked(values, "values");
    py::array_t<float> found = new_array(shape_of(values));
    float* const to = found.mutable_data();
    const std::int64_t count = values.size();
    const Intensity map = checked_map({std::move(hu), std::move(x)});
    const py::gil_scoped_release release;
    map.to_hu(given, to, count, threads);
    return found;
}

}  // namespace

void bind_consistency(py::module_& module) {
    module.def("to_hu", &in_hu, "hu"_a, "x"_a, "values"_a, "threads"_a = 0);
    module.def("rays_within", &within, "shape"_a, "index_to_mm"_a, "views"_a, "threads"_a = 0);
}

}  // namespace x2ct::python
