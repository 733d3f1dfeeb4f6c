// Devices by name. The CPU is always there; any other is a shared library, opened when it is asked for and never
// closed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "x2ct/device.h"

namespace x2ct {

/// Grows whenever anything in device.h or here changes: a library of another version is refused.
inline constexpr std::uint32_t kDeviceAbi = 3;

// What a device's library exports, with C linkage.
extern "C" {
using DeviceAbi = std::uint32_t();  ///< x2ct_device_abi: the kDeviceAbi it was built with
/// x2ct_device_list: what there is of its kind here, in words, by index; throws MissingRuntime where there is none.
using DeviceList = std::vector<std::string>();
/// x2ct_device_open: the device of this index, with a stream of its own. Throws MissingRuntime, InputError,
/// OutOfMemory.
using DeviceOpen = Device*(int index);
}

struct DeviceStatus {
    std::string name;  ///< "cpu", "cuda"
    bool built = false;
    bool available = false;
    std::string reason;              ///< why it isn't available and what to do
    std::vector<std::string> found;  ///< in words, by index
};

/// "cpu", "cuda" or "cuda:N". `library_dir` is the folder of libx2ct_cuda.so; `threads` is for the CPU's kernels.
/// Throws InputError for an unknown name, MissingRuntime for a device that can't be had here.
std::shared_ptr<Device> open_device(const std::string& name, const std::string& library_dir, int threads = 0);

/// All kinds of devices, and what there is of each. What is missing is a line, not an exception.
std::vector<DeviceStatus> device_status(const std::string& library_dir);

}  // namespace x2ct
