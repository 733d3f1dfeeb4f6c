// Plans of tiles.
#include <pybind11/stl.h>

#include "bind.h"
#include "x2ct/tiling.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {

void bind_tiles(py::module_& module) {
    py::class_<TilePlan>(module, "TilePlan", "One tile shape for a grid, and what it takes.")
        .def_property_readonly("grid", [](const TilePlan& self) { return py::tuple(py::cast(self.denoiser.grid)); })
        .def_property_readonly("tile", [](const TilePlan& self) { return py::tuple(py::cast(self.denoiser.tile)); })
        .def_property_readonly("halo", [](const TilePlan& self) { return self.denoiser.halo; })
        .def_property_readonly("count", [](const TilePlan& self) { return py::tuple(py::cast(self.denoiser.count())); })
        .def_property_readonly("lift_tile", [](const TilePlan& self) { return py::tuple(py::cast(self.lift.tile)); })
        .def_readonly("keep", &TilePlan::keep)
        .def_readonly("in_turn", &TilePlan::in_turn)
        .def_readonly("bytes", &TilePlan::bytes)
        .def_property_readonly("whole", &TilePlan::whole);
    module.def(
        "plan_tiles",
        [](const Index& grid, std::int64_t stride, std::int64_t halo, std::int64_t lift_halo, std::int64_t budget,
           std::int64_t fixed, double of_grid, double conditions, double denoiser, double lift) {
            return plan_tiles(grid, stride, halo, lift_halo, {fixed, of_grid, conditions, denoiser, lift}, budget);
        },
        "grid"_a, "stride"_a, "halo"_a, "lift_halo"_a, "budget"_a, py::kw_only(), "fixed"_a, "grid_bytes"_a,
        "condition_bytes"_a, "denoiser_bytes"_a, "lift_bytes"_a);
}

}  // namespace x2ct::python
