// The module x2ct._core.
#include "bind.h"

PYBIND11_MODULE(_core, module) {
    module.doc() =
        "The C++ core of x2ct: bundles, views, schedules, solvers, noise, the sampling loop, networks and the "
        "projector.";
    x2ct::python::bind_errors(module);
    x2ct::python::bind_schedule(module);
    x2ct::python::bind_table(module);
    x2ct::python::bind_noise(module);
    x2ct::python::bind_network(module);
    x2ct::python::bind_plan(module);
    x2ct::python::bind_consistency(module);
    x2ct::python::bind_tiles(module);
    x2ct::python::bind_ensemble(module);
    x2ct::python::bind_sampler(module);
    x2ct::python::bind_networks(module);
    x2ct::python::bind_bundle(module);
    x2ct::python::bind_picture(module);
    bind_projector(module);
}
