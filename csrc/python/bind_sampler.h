// What Python holds of the sampling loop.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <functional>

#include "x2ct/sampler.h"

namespace x2ct::python {

struct CancelToken {
    std::atomic<bool> cancelled{false};
};

/// Between evaluations and tiles: Ctrl-C ends a run.
void hear_signals();

/// Signals first, so that Ctrl-C ends a run, then the caller's progress, None or a function of three numbers, which
/// must outlive the run.
std::function<void(const Progress&)> between_evaluations(const pybind11::object& progress);

}  // namespace x2ct::python
