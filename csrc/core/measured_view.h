// An X-ray on its way to consistency.
#pragma once

#include "x2ct/consistency.h"

namespace x2ct {

/// Averages blocks of pixels until a pixel is about as large as a voxel looks from the grid's centre; a block counts as
/// measured if all of it is. Blocks begin so that their centres see voxels' centres where that can be had.
MeasuredView averaged(const VolumeGrid& grid, const MeasuredView& measured);

/// Throws InputError unless sizes match, values are finite and the view sees the grid's centre.
void check(const VolumeGrid& grid, const MeasuredView& measured);

}  // namespace x2ct
