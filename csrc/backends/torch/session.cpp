#include "session.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>

#include <optional>

#include "../binding.h"
#include "failure.h"
#include "runtime.h"

namespace x2ct::torch {

TorchSession::TorchSession(std::shared_ptr<Model> model, std::vector<TensorInfo> inputs,
                           std::vector<TensorInfo> outputs, Place place, bool tf32, int threads, void* stream,
                           std::unique_ptr<Pool> pool)
    : model_(std::move(model)),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      place_(std::move(place)),
      tf32_(tf32),
      threads_(threads),
      stream_(stream),
      pool_(std::move(pool)),
      given_(inputs_.size()),
      bound_(outputs_.size()),
      made_(outputs_.size()) {}

at::Tensor TorchSession::wrap(const TensorInfo& info, float* data, const Shape& shape) const {
    check_fits(info, shape);
    const c10::Device device = device_of(place_);
    const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
    return at::for_blob(data, shape).target_device(device).options(options).make_tensor();
}

void TorchSession::set_input(const std::string& name, const float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const std::size_t index = index_of(inputs_, name);
        given_[index] = wrap(inputs_[index], const_cast<float*>(data), shape);  // only ever read
    });
}

void TorchSession::set_output(const std::string& name, float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const std::size_t index = index_of(outputs_, name);
        bound_[index] = wrap(outputs_[index], data, shape);
    });
}

void TorchSession::evaluate() {
    for (std::size_t i = 0; i < given_.size(); ++i) {
        if (!given_[i].defined()) throw InputError(inputs_[i].name + ": found no tensor, expected one to be bound");
    }
    guarded("evaluating", [&] {
        const c10::InferenceMode inference;
        const Threads threads(place_.is_cpu() ? threads_ : 0);
        const Tf32 tf32(place_, tf32_);
        std::optional<c10::StreamGuard> current;
        if (stream_ != nullptr) current.emplace(stream_of(place_, stream_));
        if (pool_) {
            pool_->within([&] { run(); });
        } else {
            run();
        }
        if (!place_.is_cpu() && stream_ == nullptr) wait_for(place_);
    });
}

void TorchSession::run() {
    const auto found = model_->run(given_, stream_);
    if (found.size() != outputs_.size()) {
        throw Error("torch: evaluating: found " + std::to_string(found.size()) + " outputs, expected " +
                    std::to_string(outputs_.size()));
    }
    for (std::size_t i = 0; i < found.size(); ++i) {
        if (!fits(Shape(found[i].sizes().begin(), found[i].sizes().end()), outputs_[i].shape)) {
            throw Error("torch: evaluating: " + outputs_[i].name + ": found another shape, expected " +
                        to_string(outputs_[i].shape));
        }
        if (bound_[i].defined()) bound_[i].copy_(found[i]);
        made_[i] = bound_[i].defined() ? bound_[i] : found[i].to(at::kFloat).contiguous();
    }
}

TensorView TorchSession::output(const std::string& name) {
    const at::Tensor& found = made_[index_of(outputs_, name)];
    if (!found.defined()) throw Error("torch: reading " + name + ": found nothing, expected an evaluation before");
    return {found.const_data_ptr<float>(), Shape(found.sizes().begin(), found.sizes().end())};
}

}  // namespace x2ct::torch
