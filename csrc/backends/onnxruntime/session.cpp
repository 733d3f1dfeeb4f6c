#include "session.h"

#include <onnxruntime_run_options_config_keys.h>

#include <algorithm>
#include <string>
#include <utility>

#include "../binding.h"
#include "failure.h"

namespace x2ct::onnxruntime {
namespace {

bool is_free(const Shape& shape) {
    return std::ranges::any_of(shape, [](std::int64_t axis) { return axis < 0; });
}

// A tensor over the caller's memory: nothing is copied on the way in or out.
Ort::Value wrap(const Ort::MemoryInfo& memory, const TensorInfo& info, float* data, const Shape& shape) {
    check_fits(info, shape);
    return Ort::Value::CreateTensor<float>(memory, data, static_cast<std::size_t>(volume_of(shape)), shape.data(),
                                           shape.size());
}

}  // namespace

OrtSession::OrtSession(std::shared_ptr<Ort::Session> model, std::vector<TensorInfo> inputs,
                       std::vector<TensorInfo> outputs, Ort::MemoryInfo memory, Ort::RunOptions run, bool records)
    : model_(std::move(model)),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      memory_(std::move(memory)),
      run_(std::move(run)),
      binding_(*model_),
      records_(records),
      is_bound_(outputs_.size(), false) {
    for (const TensorInfo& output : outputs_) binding_.BindOutput(output.name.c_str(), memory_);
}

void OrtSession::set_input(const std::string& name, const float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const TensorInfo& info = inputs_[index_of(inputs_, name)];
        binding_.BindInput(name.c_str(), wrap(memory_, info, const_cast<float*>(data), shape));  // only ever read
        bound_[name] = data;
    });
}

void OrtSession::set_output(const std::string& name, float* data, const Shape& shape) {
    guarded("binding " + name, [&] {
        const std::size_t index = index_of(outputs_, name);
        binding_.BindOutput(name.c_str(), wrap(memory_, outputs_[index], data, shape));
        is_bound_[index] = true;
        bound_[name] = data;
    });
}

// A provider that replays what it recorded reads and writes where it did then: other memory is another graph.
void OrtSession::choose_graph() {
    const int graph = graphs_.try_emplace(bound_, static_cast<int>(graphs_.size()) + 1).first->second;
    run_.AddConfigEntry(kOrtRunOptionsConfigCudaGraphAnnotation, std::to_string(graph).c_str());
}

void OrtSession::evaluate() {
    guarded("evaluating", [&] {
        for (std::size_t i = 0; i < outputs_.size(); ++i) {
            // The runtime keeps its own output for the next evaluation, whose size may be another.
            if (!is_bound_[i] && is_free(outputs_[i].shape)) binding_.BindOutput(outputs_[i].name.c_str(), memory_);
        }
        if (records_) choose_graph();
        model_->Run(run_, binding_);
    });
}

TensorView OrtSession::output(const std::string& name) {
    return guarded("reading " + name, [&] {
        const auto values = binding_.GetOutputValues();  // handles: the binding keeps the memory
        const Ort::Value& value = values.at(index_of(outputs_, name));
        return TensorView{value.GetTensorData<float>(), value.GetTensorTypeAndShapeInfo().GetShape()};
    });
}

}  // namespace x2ct::onnxruntime
