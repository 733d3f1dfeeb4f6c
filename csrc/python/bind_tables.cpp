#include <pybind11/stl.h>
#include <algorithm>

#include "bind.h"
#include "core/parallel.h"
#include "x2ct/noise.h"
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

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
namespace {

py::array_t<double> rows(const Table& table) {
    const std::vector<double> numbers = table.matrix();
    py::array_t<double> array({table.rows().size(), Table::columns().size()});
    std::ranges::copy(numbers, array.mutable_data());
    return array;
}

py::list solver_list() {
    py::list list;
    for (const SolverInfo& solver : solvers()) {
        list.append(py::dict("name"_a = solver.name, "order"_a = solver.order, "registers"_a = solver.registers,
                             "stochastic"_a = solver.stochastic, "timed"_a = solver.timed));
    }
    return list;
}

Table make(const std::string& solver, const std::vector<double>& sigmas, double churn, double s_min, double s_max,
           double s_noise, bool to_zero, const std::string& time) {
    return make_table(solver, sigmas, {churn, s_min, s_max, s_noise, to_zero, time});
}

}  // namespace

void bind_table(py::module_& module) {
    const SolverOptions defaults;
    py::class_<Table>(module, "Table", "A schedule and a solver, compiled to rows of coefficients.")
        .def_static("make", &make, "solver"_a, "sigmas"_a, py::kw_only(), "churn"_a = defaults.s_churn,
                    "s_min"_a = defaults.s_min, "s_max"_a = defaults.s_max, "s_noise"_a = defaults.s_noise,
                    "to_zero"_a = defaults.to_zero, "time"_a = defaults.time,
                    "The table of a solver for strictly falling sigmas; a last 0 is added unless to_zero is False.")
        .def_property_readonly("solver", &Table::solver)
        .def_property_readonly("sigmas", &Table::sigmas)
        .def_property_readonly("start_scale", &Table::start_scale)
        .def_property_readonly("start_noise", &Table::start_noise)
        .def_property_readonly("rows", &rows)
        .def_property_readonly_static("columns", [](const py::object&) { return Table::columns(); })
        .def_property_readonly("registers", &Table::registers)
        .def_property_readonly("evaluations", &Table::evaluations)
        .def("describe", &Table::describe)
        .def("__repr__", [](const Table& table) {
            return "<x2ct._core.Table " + table.solver() + ", " + std::to_string(table.evaluations()) + " evaluations>";
        });
    module.def("solvers", &solver_list, "The solvers: name, order of convergence and the volumes each keeps.");
}

}  // namespace x2ct::python

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
