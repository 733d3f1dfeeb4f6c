// All that is asked of a device beside rows and copies, mostly by consistency, as plain data with what it does to a
// range of elements.
//
// Each has count() elements in lines of line(), and costs about cost() reads an element. run<Most>(begin, end) does the
// elements [begin, end), at most `Most` of one line, and none depends on another: a GPU takes one a thread, a CPU
// strips of kStrip, and both get the same bits.
#pragma once

#include <variant>

#include "kernels/aligned.h"
#include "kernels/projector.h"
#include "kernels/pull.h"
#include "kernels/voxels.h"

namespace x2ct {

struct RayKernel {
    using Work =
        std::variant<kernels::KnotMap, kernels::Clamped, kernels::Residual, kernels::Added, kernels::AlignedForward,
                     kernels::AlignedBackward, kernels::SliceTotals, kernels::SliceSteps, kernels::JosephForward,
                     kernels::JosephBackward, kernels::Coordinates, kernels::ToHu>;
    Work work;
};

}  // namespace x2ct
