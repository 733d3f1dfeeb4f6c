#include "x2ct/backend.h"

#include <chrono>
#include <sstream>

#include "openvino.h"

namespace x2ct::openvino {

std::string Failures::text_of(const std::exception& error) {
    std::istringstream lines(error.what());
    std::string text, line;
    while (std::getline(lines, line)) {
        const bool is_place = line.starts_with("Exception from ") || line.find(" failed at ") != std::string::npos;
        if (!is_place) text += line + "\n";
    }
    return one_line(text);
}

// The OpenVINO backend: the library's door. It is linked to the runtime by SONAME only; whoever opens this library has
// opened the runtime before.
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

namespace x2ct::openvino {
namespace {

// A tensor over the caller's memory: nothing is copied on the way in or out.
ov::Tensor wrap(const ov::Output<const ov::Node>& port, const std::string& name, float* data, const Shape& shape) {
    const ov::Shape sizes(shape.begin(), shape.end());
    if (!port.get_partial_shape().compatible(sizes)) {
        throw InputError(name + ": shape: found " + to_string(shape) + ", expected " +
                         port.get_partial_shape().to_string());
    }
    return {ov::element::f32, sizes, data};
}

}  // namespace

void OpenVinoSession::set_input(const std::string& name, const float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const auto port = model_.input(name);
        request_.set_tensor(port, wrap(port, name, const_cast<float*>(data), shape));  // only ever read
    });
}

void OpenVinoSession::set_output(const std::string& name, float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const auto port = model_.output(name);
        request_.set_tensor(port, wrap(port, name, data, shape));
    });
}

void OpenVinoSession::evaluate() {
    guarded("evaluating", [&] { request_.infer(); });
}

TensorView OpenVinoSession::output(const std::string& name) {
    return guarded("reading " + name, [&] {
        const ov::Tensor tensor = request_.get_tensor(model_.output(name));
        const auto& sizes = tensor.get_shape();
        return TensorView{tensor.data<const float>(), Shape(sizes.begin(), sizes.end())};
    });
}

std::vector<LayerTime> OpenVinoSession::profile() {
    if (!model_.get_property(ov::enable_profiling)) {
        throw InputError("profile: found a network that was loaded without it, expected one loaded with profile");
    }
    return guarded("profiling", [&] {
        std::vector<LayerTime> layers;
        for (const ov::ProfilingInfo& info : request_.get_profiling_info()) {
            if (info.status != ov::ProfilingInfo::Status::EXECUTED) continue;
            const double ms = std::chrono::duration<double, std::milli>(info.real_time).count();
            layers.push_back({info.node_name, info.node_type, info.exec_type, ms});
        }
        return layers;
    });
}

}  // namespace x2ct::openvino
