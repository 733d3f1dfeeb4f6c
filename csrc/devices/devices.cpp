// devices/ holds one folder a device: its memory, its copies and the few element-wise kernels that the loop needs. A
// device knows neither solvers nor networks. This file opens those that are libraries of their own.
#include "x2ct/devices.h"

#include <filesystem>
#include <utility>

#include "core/names.h"
#include "core/system.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "libx2ct_cuda.so";

[[noreturn]] void missing(const std::string& why) { throw MissingRuntime("device cuda: " + why); }

bool is_built(const std::string& library_dir) {
    std::error_code ignored;
    return fs::exists(fs::path(library_dir) / kFile, ignored);
}

SharedLibrary library_in(const std::string& library_dir) {
    if (!is_built(library_dir)) {
        missing(std::string("this build of x2ct has no ") + kFile +
                "; CUDA's compiler was not found: build it with -DX2CT_CUDA=ON");
    }
    SharedLibrary library = open_library((fs::path(library_dir) / kFile).string());
    if (library.handle == nullptr) missing(library.flaw + "; reinstall x2ct");
    return library;
}

template <typename Function>
Function* symbol(const SharedLibrary& library, const char* name) {
    auto* const function = reinterpret_cast<Function*>(library.symbol(name));
    if (function == nullptr) missing(std::string("its library has no ") + name + "; reinstall x2ct");
    return function;
}

// The library's functions, its version checked.
std::pair<DeviceList*, DeviceOpen*> functions(const std::string& library_dir) {
    const SharedLibrary library = library_in(library_dir);
    const std::uint32_t abi = symbol<DeviceAbi>(library, "x2ct_device_abi")();
    if (abi != kDeviceAbi) {
        missing("interface version: found " + std::to_string(abi) + ", expected " + std::to_string(kDeviceAbi) +
                "; reinstall x2ct");
    }
    return {symbol<DeviceList>(library, "x2ct_device_list"), symbol<DeviceOpen>(library, "x2ct_device_open")};
}

}  // namespace

std::shared_ptr<Device> open_device(const std::string& name, const std::string& library_dir, int threads) {
    const Place place = place_of(name);
    if (place.is_cpu()) return cpu_device(threads);
    const auto [list, open] = functions(library_dir);
    const std::size_t count = list().size();
    if (static_cast<std::size_t>(place.index) >= count) {
        throw MissingRuntime("device " + name + ": found " + std::to_string(count) + " of them, expected more than " +
                             std::to_string(place.index));
    }
    return std::shared_ptr<Device>(open(place.index));
}

std::vector<DeviceStatus> device_status(const std::string& library_dir) {
    DeviceStatus cuda{"cuda", is_built(library_dir), false, "", {}};
    try {
        cuda.found = functions(library_dir).first();
        cuda.available = true;
    } catch (const std::exception& error) {
        cuda.reason = error.what();
    }
    return {{"cpu", true, true, "", {}}, std::move(cuda)};
}

}  // namespace x2ct
