// The ONNX Runtime backend: the library's door. It is not linked to the runtime: whoever opens this library has opened
// the runtime before, and hands over what dlopen gave.
#include "x2ct/backend.h"

#include "failure.h"
#include "network.h"
#include "provider.h"
#include "runtime.h"

namespace x2ct::onnxruntime {
namespace {

class OrtBackend : public Backend {
  public:
    std::string version() const override { return onnxruntime::version(); }

    std::vector<std::string> devices() const override {
        return guarded("asking", [] {
            std::vector<std::string> here = {"cpu"};
            if (flaw_of_provider("cuda").empty()) here.emplace_back("cuda");
            return here;
        });
    }

    std::map<std::string, std::string> missing_devices() const override {
        return guarded("asking", [] {
            std::map<std::string, std::string> missing;
            const std::string flaw = flaw_of_provider("cuda");
            if (!flaw.empty()) missing["cuda"] = flaw;
            return missing;
        });
    }

    std::vector<std::string> precisions(const std::string& device) const override { return precisions_of(device); }

    std::unique_ptr<Network> load(const NetworkOptions& options) override {
        return guarded("loading " + options.path, [&] { return std::make_unique<OrtNetwork>(options); });
    }
};

}  // namespace
}  // namespace x2ct::onnxruntime

extern "C" X2CT_VISIBLE std::uint32_t x2ct_backend_abi() { return x2ct::kBackendAbi; }

extern "C" X2CT_VISIBLE x2ct::Backend* x2ct_backend_open(void* runtime) {
    using namespace x2ct::onnxruntime;
    guarded("starting", [&] {
        start(runtime);
        environment();
    });
    static auto* backend = new OrtBackend();  // never destroyed, like the runtime
    return backend;
}
