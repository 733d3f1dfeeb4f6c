// The module x2ct._core.
#include "bind.h"

PYBIND11_MODULE(_core, module) {
    module.doc() = "The C++ core of x2ct: schedules, solvers, noise, the sampling loop, networks and the projector.";
    x2ct::python::bind_errors(module);
#ifdef X2CT_PROJECTOR
    bind_projector(module);
#endif
}
