// The OpenVINO backend: the library's door. It is linked to the runtime by SONAME only; whoever opens this library has
// opened the runtime before.
#include "x2ct/backend.h"

#include "failure.h"
#include "network.h"
#include "precision.h"

namespace x2ct::openvino {
namespace {

class OpenVinoBackend : public Backend {
  public:
    std::string version() const override { return openvino::version(); }

    std::vector<std::string> devices() const override { return {"cpu"}; }

    std::vector<std::string> precisions(const std::string& device) const override {
        return guarded("asking " + device, [&] { return native_precisions(core_, device); });
    }

    std::unique_ptr<Network> load(const NetworkOptions& options) override {
        return guarded("loading " + options.path, [&] { return std::make_unique<OpenVinoNetwork>(core_, options); });
    }

  private:
    mutable ov::Core core_;
};

}  // namespace
}  // namespace x2ct::openvino

extern "C" X2CT_VISIBLE std::uint32_t x2ct_backend_abi() { return x2ct::kBackendAbi; }

// Never destroyed: at exit the runtime's own threads and static objects go in an order that is not ours to choose.
extern "C" X2CT_VISIBLE x2ct::Backend* x2ct_backend_open(void*) {
    static auto* backend = x2ct::openvino::guarded("starting", [] { return new x2ct::openvino::OpenVinoBackend(); });
    return backend;
}
