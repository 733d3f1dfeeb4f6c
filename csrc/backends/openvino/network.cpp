#include "network.h"

#include <filesystem>

#include "failure.h"
#include "liveness.h"
#include "precision.h"
#include "quantise.h"
#include "session.h"

namespace x2ct::openvino {
namespace {

std::shared_ptr<ov::Model> read(ov::Core& core, const std::string& path) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) {
        throw InputError(path + ": file: found none, expected an ONNX network");
    }
    try {
        return core.read_model(path);
    } catch (const std::exception& error) {
        throw InputError(path + ": file: found something unreadable, expected an ONNX network; " +
                         Failures::text_of(error));
    }
}

std::vector<TensorInfo> describe(const std::vector<ov::Output<ov::Node>>& ports, const std::string& path) {
    std::vector<TensorInfo> tensors;
    for (const auto& port : ports) {
        TensorInfo tensor{port.get_names().empty() ? "" : port.get_any_name(), {}};
        if (tensor.name.empty()) throw InputError(path + ": tensor: found one without a name, expected names");
        if (port.get_element_type() != ov::element::f32) {
            throw InputError(path + ": " + tensor.name + ": found " + port.get_element_type().get_type_name() +
                             ", expected f32");
        }
        const ov::PartialShape& sizes = port.get_partial_shape();
        if (sizes.rank().is_dynamic()) {
            throw InputError(path + ": " + tensor.name + ": found no rank, expected a shape");
        }
        for (const ov::Dimension& axis : sizes) tensor.shape.push_back(axis.is_static() ? axis.get_length() : -1);
        tensors.push_back(std::move(tensor));
    }
    return tensors;
}

// Static shapes before compiling: the plugin plans its memory and picks its kernels by them.
void reshape(ov::Model& model, const NetworkOptions& options) {
    if (options.shapes.empty()) return;
    std::map<std::string, ov::PartialShape> shapes;
    for (const auto& [name, shape] : options.shapes) {
        bool known = false;
        for (const auto& input : model.inputs()) known = known || input.get_names().contains(name);
        if (!known) throw InputError(options.path + ": shapes: found " + name + ", expected names of its inputs");
        for (const std::int64_t axis : shape) {
            if (axis < 1)
                throw InputError(options.path + ": " + name + ": found shape " + to_string(shape) +
                                 ", expected sizes >= 1");
        }
        shapes[name] = ov::PartialShape(std::vector<ov::Dimension>(shape.begin(), shape.end()));
    }
    try {
        model.reshape(shapes);
    } catch (const std::exception& error) {
        throw InputError(options.path + ": shapes: found some that the network can't take; " +
                         Failures::text_of(error));
    }
}

ov::AnyMap properties(ov::element::Type precision, int threads, bool profile) {
    ov::AnyMap map = {
        ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
        ov::hint::num_requests(1),
        ov::hint::inference_precision(precision),
        // Pinned threads of two processes land on the same cores; the scheduler does better.
        ov::hint::enable_cpu_pinning(false),
        ov::enable_profiling(profile),
    };
    if (threads > 0) map.insert(ov::inference_num_threads(threads));
    return map;
}

}  // namespace

OpenVinoNetwork::OpenVinoNetwork(ov::Core& core, const NetworkOptions& options) : device_(options.device) {
    const std::string device = device_of(options.device);
    if (!options.provider.empty() || !options.provider_options.empty() || options.stream != nullptr) {
        throw InputError("provider: found \"" + options.provider +
                         "\" or options of one, expected none: openvino has no execution providers; "
                         "use backend onnxruntime");
    }
    if (options.threads < 0)
        throw InputError("threads: found " + std::to_string(options.threads) + ", expected 0 or more");
    const auto wanted = choose(options.precision, native_precisions(core, options.device), options.device);
    const auto model = read(core, options.path);
    reshape(*model, options);
    inputs_ = describe(model->inputs(), options.path);
    outputs_ = describe(model->outputs(), options.path);
    const bool in_int8 = options.precision == "int8";
    if (in_int8) quantise(*model, options);
    model_ = guarded("compiling " + options.path, [&] {
        return core.compile_model(model, device, properties(wanted, options.threads, options.profile));
    });
    // The hint is only a hint: what counts is what the compiled model says.
    precision_ = name_of(model_.get_property(ov::hint::inference_precision));
    if (precision_ != name_of(wanted)) {
        throw MissingRuntime("precision " + name_of(wanted) + ": openvino compiled " + options.path + " in " +
                             precision_ + " instead; ask for that");
    }
    if (in_int8) {
        check_quantised(*guarded("looking into it", [&] { return model_.get_runtime_model(); }), options);
        precision_ = "int8";
    }
}

std::int64_t OpenVinoNetwork::scratch_bytes() const {
    return guarded("measuring", [&] { return most_alive(*model_.get_runtime_model()); });
}

std::string OpenVinoNetwork::runtime_version() const { return version(); }

std::unique_ptr<Session> OpenVinoNetwork::session() {
    return guarded("making a session", [&] { return std::make_unique<OpenVinoSession>(model_); });
}

std::string version() {
    const std::string build = ov::get_openvino_version().buildNumber;
    return build.substr(0, build.find('-'));
}

}  // namespace x2ct::openvino
