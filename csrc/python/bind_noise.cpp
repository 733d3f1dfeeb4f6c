#include <pybind11/stl.h>

#include "bind.h"
#include "core/parallel.h"
#include "x2ct/noise.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
namespace {

py::array_t<float> noise(const std::vector<std::int64_t>& shape, std::uint64_t seed, std::uint32_t draw,
                         std::uint32_t sample, int threads) {
    py::array_t<float> array = new_array(checked_shape(shape, "normal"));
    float* const to = array.mutable_data();
    const std::int64_t count = array.size();
    const py::gil_scoped_release release;
    parallel_for(count, 1 << 16, 4, threads, [&](std::int64_t begin, std::int64_t end) {
        normal(to + begin, begin, end - begin, {seed, draw, sample});
    });
    return array;
}

}  // namespace

void bind_noise(py::module_& module) {
    module.def("normal", &noise, "shape"_a, "seed"_a, "draw"_a = 0, "sample"_a = 0, "threads"_a = 0,
               "Standard normals by counter (Philox 4x32-10): the same bits whatever the threads.");
}

}  // namespace x2ct::python
