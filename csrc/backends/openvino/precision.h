// Names of precisions, and what the device computes natively.
#pragma once

#include <openvino/openvino.hpp>
#include <string>
#include <vector>

namespace x2ct::openvino {

/// OpenVINO's name of a device of ours ("cpu" -> "CPU"). Throws MissingRuntime for one that this backend doesn't drive.
std::string device_of(const std::string& name);

/// Fastest first, by what the device says of itself; "int8" is the last.
std::vector<std::string> native_precisions(ov::Core& core, const std::string& device);

/// What to compile in for "auto" or a name. Throws InputError for an unknown one, MissingRuntime for one that the
/// device would not compute in (OpenVINO takes such a hint and computes in something else).
/// Of "int8": of all but the convolutions.
ov::element::Type choose(const std::string& wanted, const std::vector<std::string>& native, const std::string& device);

std::string name_of(const ov::element::Type& type);

}  // namespace x2ct::openvino
