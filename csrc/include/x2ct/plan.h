// Plans: what a backend builds from a network for one kind of device, ahead of loading it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "x2ct/network.h"

namespace x2ct {

/// The shapes of an input that a plan is for; all three are equal where there is but one.
struct ShapeRange {
    Shape least;
    Shape usual;  ///< what kernels are chosen for
    Shape largest;
};

struct PlanOptions {
    std::string path;    ///< the .onnx file; its types are those that the plan computes in
    std::string output;  ///< the plan
    std::string device = "cuda";
    /// What the graph is typed in: "f32", "tf32", "bf16" or "f16"; the plan remembers it.
    std::string precision = "f32";
    std::map<std::string, ShapeRange> profile;  ///< of every input
    std::int64_t workspace_bytes = 0;           ///< the most that a kernel may use beside its tensors; 0: all there is
    int effort = 3;                             ///< 0 to 5: how long kernels are compared
    std::string timing_cache = {};              ///< a file of kernels' timings, read if it is there and written; or ""
    /// Called with a phase's name, steps done, and of how many; from any thread. False ends the build with Cancelled;
    /// so does what it throws, which comes out.
    std::function<bool(const std::string& phase, int step, int steps)> progress = {};
};

}  // namespace x2ct
