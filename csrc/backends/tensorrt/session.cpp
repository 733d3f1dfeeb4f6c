#include "session.h"

#include <algorithm>
#include <cstdint>

#include "shapes.h"
#include "x2ct/error.h"

namespace x2ct::tensorrt {
namespace {

constexpr std::uintptr_t kAlignment = 256;  // what TensorRT asks of a tensor's address

void check_address(const std::string& name, const void* data) {
    if (data == nullptr || reinterpret_cast<std::uintptr_t>(data) % kAlignment != 0) {
        throw InputError(name + ": address: found one that is no multiple of " + std::to_string(kAlignment) +
                         " bytes, expected the start of an allocation on the device");
    }
}

}  // namespace

TensorRtSession::TensorRtSession(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {
    const OnDevice current(engine_->device);
    context_.reset(
        engine_->engine->createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
    if (!context_) engine_->errors.raise("making a session");
    context_->setErrorRecorder(&engine_->errors);
    if (engine_->stream == nullptr) own_stream_.emplace(engine_->device);
}

// What is queued on a stream of the caller's may still read the scratch memory.
TensorRtSession::~TensorRtSession() {
    if (engine_->stream != nullptr) (void)cudaStreamSynchronize(static_cast<cudaStream_t>(engine_->stream));
}

const TensorInfo& TensorRtSession::info(const std::vector<TensorInfo>& tensors, const std::string& name) const {
    const auto found = std::ranges::find(tensors, name, &TensorInfo::name);
    if (found == tensors.end()) throw InputError(name + ": found a name that the network doesn't have");
    return *found;
}

void TensorRtSession::set_input(const std::string& name, const float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const TensorInfo& declared = info(engine_->inputs, name);
        check_address(name, data);
        Shape& bound = shapes_[name];
        if (bound != shape) {
            // The profile's bounds are TensorRT's to check, the sizes that were fixed on loading are ours.
            const bool fits = std::ranges::equal(
                shape, declared.shape, [](std::int64_t size, std::int64_t axis) { return size == axis || axis < 0; });
            if (!fits || !context_->setInputShape(name.c_str(), dims_of(shape, name))) {
                engine_->errors.clear();
                shapes_.erase(name);
                throw InputError(name + ": shape: found " + to_string(shape) + ", expected " +
                                 to_string(declared.shape) + " within the plan's profile");
            }
            bound = shape;
            is_prepared_ = false;
        }
        if (!context_->setInputTensorAddress(name.c_str(), data)) engine_->errors.raise("binding " + name);
    });
}

void TensorRtSession::set_output(const std::string& name, float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        (void)info(engine_->outputs, name);
        check_address(name, data);
        // The caller's memory is as large as its shape says: what the inputs come to must be that.
        if (const Shape made = output_shape(name); made != shape) {
            throw InputError(name + ": shape: found " + to_string(shape) + ", expected " + to_string(made));
        }
        if (!context_->setOutputTensorAddress(name.c_str(), data)) engine_->errors.raise("binding " + name);
        own_outputs_.erase(name);
        bound_outputs_[name] = {data, shape};
    });
}

// Scratch memory and unbound outputs, for the shapes that are bound by now: allocated when they change, never between
// evaluations, so that a recorded evaluation can be replayed.
void TensorRtSession::prepare() {
    for (const TensorInfo& input : engine_->inputs) {
        if (!shapes_.contains(input.name))
            throw InputError("network: " + input.name + ": found none, expected it bound");
    }
    const std::size_t needed = context_->updateDeviceMemorySizeForShapes();
    if (scratch_.bytes() < needed || scratch_.data() == nullptr) {
        scratch_ = DeviceMemory();  // the old one goes before the new one is asked for
        scratch_ = DeviceMemory(engine_->device, std::max<std::size_t>(needed, kAlignment));
    }
    context_->setDeviceMemoryV2(scratch_.data(), static_cast<std::int64_t>(scratch_.bytes()));
    for (const TensorInfo& output : engine_->outputs) {
        const Shape made = output_shape(output.name);
        if (const auto bound = bound_outputs_.find(output.name); bound != bound_outputs_.end()) {
            if (bound->second.shape == made) continue;
            throw InputError(output.name + ": shape: found memory for " + to_string(bound->second.shape) +
                             ", expected for " + to_string(made) + ": bind it again after the inputs");
        }
        const auto bytes = static_cast<std::size_t>(volume_of(made)) * sizeof(float);
        DeviceMemory& own = own_outputs_[output.name];
        if (own.bytes() < bytes) own = DeviceMemory(engine_->device, bytes);
        if (!context_->setOutputTensorAddress(output.name.c_str(), own.data())) {
            engine_->errors.raise("binding " + output.name);
        }
    }
    is_prepared_ = true;
}

void TensorRtSession::evaluate() {
    guarded("evaluating", [&] {
        const OnDevice current(engine_->device);
        if (!is_prepared_) prepare();
        // On a stream of the caller's, the caller says when to wait for it.
        auto* const stream = own_stream_ ? own_stream_->get() : static_cast<cudaStream_t>(engine_->stream);
        if (!context_->enqueueV3(stream)) engine_->errors.raise("evaluating");
        if (own_stream_) check(cudaStreamSynchronize(stream), "evaluating");
    });
}

Shape TensorRtSession::output_shape(const std::string& name) const {
    const Shape shape = shape_of(context_->getTensorShape(name.c_str()));
    if (shape.empty() || std::ranges::any_of(shape, [](std::int64_t size) { return size < 0; })) {
        throw InputError(name + ": shape: found inputs that don't go together, expected all to be bound");
    }
    return shape;
}

TensorView TensorRtSession::output(const std::string& name) {
    return guarded("reading " + name, [&] {
        (void)info(engine_->outputs, name);
        const auto bound = bound_outputs_.find(name);
        const auto own = own_outputs_.find(name);
        if (bound == bound_outputs_.end() && own == own_outputs_.end()) {
            throw InputError(name + ": found no evaluation yet, expected one");
        }
        const float* const data =
            bound != bound_outputs_.end() ? bound->second.data : static_cast<const float*>(own->second.data());
        return TensorView{data, output_shape(name)};
    });
}

}  // namespace x2ct::tensorrt
