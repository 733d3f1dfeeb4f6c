// What a device computes beside the CPU, kernel by kernel: for whoever has a new GPU, driver or compiler.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "x2ct/device.h"

namespace x2ct {

/// One kind of a device's work, done by it and by the CPU on the same numbers.
struct DeviceCheck {
    std::string name;       ///< "noise", "sampling row", ...
    double difference = 0;  ///< the largest, over the largest value; 0 only for the very same bits
    double bound = 0;       ///< that a working device keeps; 0: the same bits

    /// Whether the difference is within its bound; NaN is not.
    bool passed() const { return difference <= bound; }
};

/// Does each kind of a device's work on small data and compares it with the CPU's: copies, noise, the fused row, boxes,
/// the lift's coordinates, HU, line integrals along grid axes and along cones with their transposes, and
/// data-consistency steps in closed form and by CG. Where sums are taken in another order there is a bound; everything
/// else must be the same to the bit. Takes well below a second. Throws what the device throws.
std::vector<DeviceCheck> check_device(const std::shared_ptr<Device>& device);

}  // namespace x2ct
