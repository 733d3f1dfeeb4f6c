// The module x2ct._core: one file binds one class, and this one joins them.
#include <pybind11/pybind11.h>

namespace x2ct::python {

void bind_errors(pybind11::module_& module);
void bind_schedule(pybind11::module_& module);
void bind_table(pybind11::module_& module);
void bind_noise(pybind11::module_& module);
void bind_network(pybind11::module_& module);
void bind_plan(pybind11::module_& module);
void bind_consistency(pybind11::module_& module);
void bind_tiles(pybind11::module_& module);
void bind_sampler(pybind11::module_& module);
void bind_bundle(pybind11::module_& module);
void bind_pipeline(pybind11::module_& module);
void bind_picture(pybind11::module_& module);

}  // namespace x2ct::python

void bind_projector(pybind11::module_& module);

PYBIND11_MODULE(_core, module) {
    module.doc() =
        "The C++ core of x2ct: the pipeline, bundles, views, schedules, solvers, noise, networks and the projector.";
    x2ct::python::bind_errors(module);
    x2ct::python::bind_schedule(module);
    x2ct::python::bind_table(module);
    x2ct::python::bind_noise(module);
    x2ct::python::bind_network(module);
    x2ct::python::bind_plan(module);
    x2ct::python::bind_consistency(module);
    x2ct::python::bind_tiles(module);
    x2ct::python::bind_sampler(module);
    x2ct::python::bind_bundle(module);
    x2ct::python::bind_pipeline(module);
    x2ct::python::bind_picture(module);
    bind_projector(module);
}
