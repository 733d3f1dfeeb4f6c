#include <pybind11/stl.h>

#include "bind.h"
#include "x2ct/schedule.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {

void bind_schedule(py::module_& module) {
    module.def("schedule", &schedule, "name"_a, "steps"_a, "sigma_min"_a, "sigma_max"_a, "rho"_a = 7.0,
               "Noise levels from sigma_max down to sigma_min.");
    module.def("schedules", &schedules, "The names that schedule() knows.");
    module.def("time_of", &time_of, "schedule"_a, "The time that a schedule was made in: sigma, vp or ve.");
}

}  // namespace x2ct::python
