// Backends: each is one shared library, opened when it is asked for and never closed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "x2ct/error.h"
#include "x2ct/network.h"
#include "x2ct/tiling.h"

namespace x2ct {

/// Grows whenever anything in network.h, plan.h or backend.h changes: a library of another version is refused.
inline constexpr std::uint32_t kBackendAbi = 9;

/// A runtime that compiles and evaluates networks.
class Backend {
  public:
    virtual ~Backend() = default;

    virtual std::string version() const = 0;               ///< of the runtime
    virtual std::vector<std::string> devices() const = 0;  ///< "cpu", ...
    /// Devices that this backend could drive and can't here: why, and what to install.
    virtual std::map<std::string, std::string> missing_devices() const { return {}; }
    /// What the device computes natively, fastest first; the first is what "auto" means. "int8" comes last: it needs
    /// to be told ranges.
    virtual std::vector<std::string> precisions(const std::string& device) const = 0;
    /// Throws InputError for a wrong file or option, MissingRuntime for a device or precision that isn't here.
    virtual std::unique_ptr<Network> load(const NetworkOptions& options) = 0;

    /// What a plan for the device depends on: its name, and what of it the backend compiles for. Throws InputError
    /// where the backend has no plans, MissingRuntime for a device that isn't here.
    virtual std::string plan_device(const std::string& device) const { throw no_plans(device); }
    /// Builds a plan, which load() takes as a network's path. Throws as load() does, and Cancelled.
    virtual void build(const PlanOptions& options) { throw no_plans(options.path); }

  private:
    static InputError no_plans(const std::string& what) {
        return InputError(what +
                          ": backend: found one that loads ONNX as it is, expected one that builds plans: tensorrt");
    }
};

// What a backend's library exports, with C linkage.
extern "C" {
using BackendAbi = std::uint32_t();  ///< x2ct_backend_abi: the kBackendAbi it was built with
/// x2ct_backend_open: the backend, which lives as long as the process; `runtime` is its runtime's library, as dlopen
/// gave it. Throws MissingRuntime for a runtime that it can't use.
using BackendOpen = Backend*(void* runtime);
}

/// Where a backend's library and its runtime's libraries are.
struct BackendPlace {
    std::string library_dir;  ///< the folder of libx2ct_NAME.so
    /// The installed runtime's package folder, its folder of shared libraries, or the library itself; "" is wherever
    /// the dynamic loader looks.
    std::string runtime_dir;
};

struct BackendStatus {
    std::string name;
    bool built = false;  ///< whether this build of x2ct has it
    bool available = false;
    std::string reason;   ///< why it isn't available and what to install
    std::string version;  ///< of the runtime: what is there, or what is wanted
    std::vector<std::string> devices;
    std::map<std::string, std::vector<std::string>> precisions;  ///< by device
    std::map<std::string, std::string> missing_devices;          ///< why, by device
};

/// The backend `name`. Throws InputError for an unknown name, MissingRuntime for one that can't be opened here.
Backend& open_backend(const std::string& name, const BackendPlace& place);

/// All backends that there may be, and what each can do here. What is missing is a line, not an exception.
/// `runtime_dirs` is by backend; one without an entry is looked for wherever the dynamic loader looks.
std::vector<BackendStatus> backend_status(const std::string& library_dir,
                                          const std::map<std::string, std::string>& runtime_dirs);

}  // namespace x2ct
