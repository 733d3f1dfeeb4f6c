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
using Matrix = py::array_t<double, py::array::c_style | py::array::forcecast>;

const float* picture(const py::array& image, Size& size) {
    const float* const pixels = checked(image, "X-ray");
    if (image.ndim() != 2) {
        throw InputError("X-ray: shape: found " + to_string(shape_of(image)) + ", expected two axes");
    }
    size = {image.shape(0), image.shape(1)};
    return pixels;
}

std::array<double, 12> matrix_of(const Matrix& matrix) {
    if (matrix.ndim() != 2 || matrix.shape(0) != 3 || matrix.shape(1) != 4) {
        throw InputError("matrix: shape: found " + to_string(shape_of(matrix)) + ", expected [3, 4]");
    }
    std::array<double, 12> result{};
    std::copy_n(matrix.data(), 12, result.begin());
    return result;
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

py::tuple moved(const py::array& image, const Matrix& matrix, Size shape, Pair spacing) {
    Size size{};
    const float* const pixels = picture(image, size);
    const Picture result = onto_grid(pixels, size, matrix_of(matrix), shape, spacing);
    py::array_t<double> new_matrix({3, 4});
    std::copy(result.matrix.begin(), result.matrix.end(), new_matrix.mutable_data());
    return py::make_tuple(array_of(result.pixels, shape), new_matrix);
}

}  // namespace

void bind_picture(py::module_& module) {
    module.def("resample", &resampled, "image"_a, "spacing"_a, "shape"_a, "target_spacing"_a,
               "Brings an image onto another grid with the same centre; outside the image is 0.");
    module.def("onto_grid", &moved, "image"_a, "P"_a, "shape"_a, "spacing_mm"_a,
               "Resamples a picture so that its pixel measures what is wanted at the isocentre; its new matrix too.");
}

}  // namespace x2ct::python
