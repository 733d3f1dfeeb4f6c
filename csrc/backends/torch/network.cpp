#include "network.h"

#include "description.h"
#include "failure.h"
#include "runtime.h"
#include "session.h"

namespace x2ct::torch {

TorchNetwork::TorchNetwork(const NetworkOptions& options)
    : place_(place_of(options.device)),
      precision_(choose_precision(options.precision, place_)),
      threads_(options.threads),
      stream_(options.stream) {
    if (threads_ < 0) throw InputError("threads: found " + std::to_string(threads_) + ", expected 0 or more");
    if (!options.provider_options.empty() || (place_.is_cpu() && stream_ != nullptr)) {
        throw InputError("provider options: found some, expected none: torch has none, and no stream on the CPU");
    }
    if (!place_.is_cpu()) {
        const std::string flaw = flaw_of_cuda();
        if (!flaw.empty()) throw MissingRuntime("device " + options.device + ": " + flaw);
    }
    model_ = load_model(options.path, place_);
    const Description told = description_of(model_->description(), options.path);
    // TorchScript runs anywhere; a package is compiled for one kind of device.
    if (told.device != place_.kind && options.path.ends_with(".pt2")) {
        throw InputError(options.path + ": device: found a package for " + told.device + ", expected one for " +
                         place_.kind + "; make it on such a machine");
    }
    const std::string weights = model_->weights();
    if (!weights.empty() && weights != "f32") {
        throw InputError(options.path + ": weights: found " + weights + ", expected f32");
    }
    const auto sizes = sizes_of_axes(told, options);
    inputs_ = infos(told.inputs, sizes);
    outputs_ = infos(told.outputs, sizes);
}

std::string TorchNetwork::runtime_version() const { return version(); }

std::unique_ptr<Session> TorchNetwork::session() {
    return std::make_unique<TorchSession>(model_, inputs_, outputs_, place_, precision_ == "tf32", threads_, stream_);
}

}  // namespace x2ct::torch
