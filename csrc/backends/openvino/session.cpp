#include "session.h"

#include <chrono>

#include "failure.h"

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
