// The TensorRT backend: the library's door. It is linked neither to TensorRT nor to a shared CUDA runtime: whoever
// opens this library has opened libnvinfer before, and hands over what dlopen gave.
#include "x2ct/backend.h"

#include "builder.h"
#include "cuda.h"
#include "failure.h"
#include "network.h"
#include "runtime.h"

namespace x2ct::tensorrt {
namespace {

class TensorRtBackend : public Backend {
  public:
    std::string version() const override { return tensorrt::version(); }

    std::vector<std::string> devices() const override {
        return flaw_of_cuda().empty() ? std::vector<std::string>{"cuda"} : std::vector<std::string>{};
    }

    std::map<std::string, std::string> missing_devices() const override {
        std::map<std::string, std::string> missing;
        if (const std::string flaw = flaw_of_cuda(); !flaw.empty()) missing["cuda"] = flaw;
        return missing;
    }

    // What a plan can be built in; which one a network has stands in its plan.
    std::vector<std::string> precisions(const std::string&) const override { return {"f16", "bf16", "tf32", "f32"}; }

    std::unique_ptr<Network> load(const NetworkOptions& options) override {
        return guarded("loading " + options.path, [&] { return std::make_unique<TensorRtNetwork>(options); });
    }

    std::string plan_device(const std::string& device) const override { return describe_device(device_index(device)); }

    void build(const PlanOptions& options) override {
        guarded("building " + options.path, [&] { build_plan(options); });
    }
};

}  // namespace
}  // namespace x2ct::tensorrt

extern "C" X2CT_VISIBLE std::uint32_t x2ct_backend_abi() { return x2ct::kBackendAbi; }

extern "C" X2CT_VISIBLE x2ct::Backend* x2ct_backend_open(void* runtime) {
    using namespace x2ct::tensorrt;
    guarded("starting", [&] { start(runtime); });
    static auto* backend = new TensorRtBackend();  // never destroyed, like the runtime
    return backend;
}
