// The torch backend: the library's door. PyTorch's C++ symbols belong to one release, so whoever opens this library has
// opened the runtime before and has seen that it is the one that this was built with.
#include "x2ct/backend.h"

#include "failure.h"
#include "network.h"
#include "placement.h"
#include "runtime.h"

namespace x2ct::torch {
namespace {

class TorchBackend : public Backend {
  public:
    std::string version() const override { return torch::version(); }

    std::vector<std::string> devices() const override {
        return guarded("asking", [] {
            std::vector<std::string> here = {"cpu"};
            if (flaw_of_cuda().empty()) here.emplace_back("cuda");
            return here;
        });
    }

    std::map<std::string, std::string> missing_devices() const override {
        return guarded("asking", [] {
            std::map<std::string, std::string> missing;
            const std::string flaw = flaw_of_cuda();
            if (!flaw.empty()) missing["cuda"] = flaw;
            return missing;
        });
    }

    std::vector<std::string> precisions(const std::string& device) const override {
        return precisions_of(place_of(device).kind);
    }

    std::unique_ptr<Network> load(const NetworkOptions& options) override {
        return guarded("loading " + options.path, [&] { return std::make_unique<TorchNetwork>(options); });
    }
};

}  // namespace
}  // namespace x2ct::torch

extern "C" X2CT_VISIBLE std::uint32_t x2ct_backend_abi() { return x2ct::kBackendAbi; }

extern "C" X2CT_VISIBLE x2ct::Backend* x2ct_backend_open(void* runtime) {
    x2ct::torch::guarded("starting", [&] { x2ct::torch::open_cuda(runtime); });
    static auto* backend = new x2ct::torch::TorchBackend();  // never destroyed, like the runtime
    return backend;
}
