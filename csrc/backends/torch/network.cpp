#include "network.h"

#include "description.h"
#include "failure.h"
#include "pool.h"
#include "runtime.h"
#include "session.h"

namespace x2ct::torch {
namespace {

// "0" or "1", whether evaluations are to be such that a device can record them; "" where nobody said.
std::string graph_option(const NetworkOptions& options) {
    std::string wanted;
    for (const auto& [key, value] : options.provider_options) {
        if (key != "cuda_graph" || (value != "0" && value != "1")) {
            std::string line = "provider option " + key;
            line += ": found " + value;
            throw InputError(line += ", expected cuda_graph=0 or cuda_graph=1");
        }
        wanted = value;
    }
    return wanted;
}

}  // namespace

TorchNetwork::TorchNetwork(const NetworkOptions& options)
    : place_(place_of(options.device)),
      precision_(choose_precision(options.precision, place_)),
      threads_(options.threads),
      stream_(options.stream),
      graph_(graph_option(options)),
      records_(options.replayed && stream_ != nullptr && graph_ != "0") {
    if (threads_ < 0) throw InputError("threads: found " + std::to_string(threads_) + ", expected 0 or more");
    if (place_.is_cpu() && (!options.provider_options.empty() || stream_ != nullptr)) {
        throw InputError("provider options: found some, expected none: torch has none, and no stream, on the CPU");
    }
    if (!place_.is_cpu()) {
        const std::string flaw = flaw_of_cuda();
        if (!flaw.empty()) throw MissingRuntime("device " + options.device + ": " + flaw);
    }
    model_ = load_model(options.path, place_, stream_ != nullptr);
    const Description told = description_of(model_->description(), options.path);
    // TorchScript runs anywhere; a package is compiled for one kind of device.
    if (told.device != place_.kind && options.path.ends_with(".pt2")) {
        throw InputError(options.path + ": device: found a package for " + told.device + ", expected one for " +
                         place_.kind + "; make it on such a machine");
    }
    const std::string weights = model_->weights(), wanted = precision_ == "tf32" ? "f32" : precision_;
    if (weights != wanted && !(weights.empty() && wanted == "f32")) {
        throw InputError(options.path + ": weights: found " + (weights.empty() ? "none" : weights) + ", expected " +
                         wanted + ", which is the precision that was asked for");
    }
    const auto sizes = sizes_of_axes(told, options);
    inputs_ = infos(told.inputs, sizes);
    outputs_ = infos(told.outputs, sizes);
}

std::string TorchNetwork::runtime_version() const { return version(); }

std::unique_ptr<Session> TorchNetwork::session() {
    const bool tf32 = precision_ != "f32";  // what a narrow graph keeps in f32 may be rounded as well
    return guarded("making a session", [&] {
        auto pool = records_ ? private_pool(place_, stream_) : nullptr;
        if (records_ && pool == nullptr && graph_ == "1") {
            throw MissingRuntime(
                "provider option cuda_graph: found a torch backend that was built without CUDA's headers, expected one "
                "with them; build it where cuda_runtime_api.h is found, or leave the option out");
        }
        return std::make_unique<TorchSession>(model_, inputs_, outputs_, place_, tf32, threads_, stream_,
                                              std::move(pool));
    });
}

}  // namespace x2ct::torch
