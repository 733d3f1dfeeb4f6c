// X-ray pictures on the encoder's grid.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "bind.h"
#include "x2ct/error.h"
#include "x2ct/projector.h"
#include "x2ct/xray.h"

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

// Python's face of the projector: shapes and dtypes are checked at this door, then raw pointers.
namespace py = pybind11;

namespace {

// C-contiguous; another dtype or order is converted, so that a caller may hand over any real array.
using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;
using DoubleArray = py::array_t<double, py::array::c_style | py::array::forcecast>;

std::string shape_of(const py::array& array) { return py::str(py::tuple(array.attr("shape"))).cast<std::string>(); }

template <std::size_t Count>
std::array<double, Count> matrix(const DoubleArray& array, py::ssize_t rows, const char* name) {
    if (array.ndim() != 2 || array.shape(0) != rows || array.shape(1) != 4) {
        throw x2ct::InputError(std::string(name) + ": shape: found " + shape_of(array) + ", expected (" +
                               std::to_string(rows) + ", 4)");
    }
    std::array<double, Count> result{};
    std::copy_n(array.data(), Count, result.begin());
    return result;
}

py::array_t<float> project(const FloatArray& volume, const DoubleArray& index_to_mm, const DoubleArray& view_matrix,
                           std::int64_t rows, std::int64_t cols, int threads) {
    if (volume.ndim() != 3) {
        throw x2ct::InputError("volume: shape: found " + shape_of(volume) + ", expected three axes");
    }
    const x2ct::VolumeGrid grid{{volume.shape(0), volume.shape(1), volume.shape(2)},
                                matrix<16>(index_to_mm, 4, "index_to_mm")};
    const x2ct::DetectorView view{matrix<12>(view_matrix, 3, "P"), rows, cols};
    if (rows < 1 || cols < 1) {
        throw x2ct::InputError("view: shape: found " + std::to_string(rows) + " rows and " + std::to_string(cols) +
                               " columns, expected at least one of each");
    }
    py::array_t<float> image({rows, cols});
    const float* const from = volume.data();
    float* const to = image.mutable_data();
    {
        const py::gil_scoped_release release;
        x2ct::project(from, grid, view, to, threads);
    }
    return image;
}

py::array_t<float> backproject(const FloatArray& image, const std::array<std::int64_t, 3>& shape,
                               const DoubleArray& index_to_mm, const DoubleArray& view_matrix, int threads) {
    if (image.ndim() != 2) {
        throw x2ct::InputError("image: shape: found " + shape_of(image) + ", expected two axes");
    }
    if (*std::min_element(shape.begin(), shape.end()) < 1) {
        throw x2ct::InputError("volume: shape: found an empty axis, expected at least one voxel along each");
    }
    const x2ct::VolumeGrid grid{shape, matrix<16>(index_to_mm, 4, "index_to_mm")};
    const x2ct::DetectorView view{matrix<12>(view_matrix, 3, "P"), image.shape(0), image.shape(1)};
    py::array_t<float> volume({shape[0], shape[1], shape[2]});
    const float* const from = image.data();
    float* const to = volume.mutable_data();
    {
        const py::gil_scoped_release release;
        x2ct::backproject(from, grid, view, to, false, threads);
    }
    return volume;
}

}  // namespace

void bind_projector(py::module_& module) {
    module.def("project", &project, py::arg("volume"), py::arg("index_to_mm"), py::arg("P"), py::arg("rows"),
               py::arg("cols"), py::arg("threads") = 0,
               "Line integrals (rows, cols) float32 of a volume (x, y, z) float32 per mm; Joseph's method.");
    module.def("backproject", &backproject, py::arg("image"), py::arg("shape"), py::arg("index_to_mm"), py::arg("P"),
               py::arg("threads") = 0,
               "The exact transpose of `project`: image (rows, cols) to volume (x, y, z) float32.");
}
