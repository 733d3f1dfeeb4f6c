// X-ray pictures on the encoder's grid.
#include "x2ct/picture.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>

#include "bind.h"
#include "x2ct/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
namespace {

using Pair = std::array<double, 2>;
using Size = std::array<std::int64_t, 2>;

const float* picture(const py::array& image, Size& size) {
    const float* const pixels = checked(image, "X-ray");
    if (image.ndim() != 2) {
        throw InputError("X-ray: shape: found " + to_string(shape_of(image)) + ", expected two axes");
    }
    size = {image.shape(0), image.shape(1)};
    return pixels;
}

py::array_t<float> array_of(const std::vector<float>& pixels, const Size& size) {
    py::array_t<float> array = new_array({size[0], size[1]});
    std::copy(pixels.begin(), pixels.end(), array.mutable_data());
    return array;
}

py::array_t<float> resampled(const py::array& image, Pair spacing, Size shape, Pair target_spacing) {
    Size size{};
    const float* const pixels = picture(image, size);
    return array_of(resample(pixels, size, spacing, shape, target_spacing), shape);
}

}  // namespace

void bind_picture(py::module_& module) {
    module.def("resample", &resampled, "image"_a, "spacing"_a, "shape"_a, "target_spacing"_a,
               "Brings an image onto another grid with the same centre; outside the image is 0.");
}

}  // namespace x2ct::python
