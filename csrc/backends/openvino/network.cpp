#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "openvino.h"
#include "x2ct/error.h"

namespace x2ct::openvino {
namespace {

struct Name {
    const char* ours;
    const char* capability;  // OpenVINO's word for it
    ov::element::Type_t type;
};

// Fastest first. A CPU reports BF16 and FP16 only where it has instructions for them.
constexpr Name kNames[] = {
    {"bf16", "BF16", ov::element::Type_t::bf16},
    {"f32", "FP32", ov::element::Type_t::f32},
    {"tf32", "TF32", ov::element::Type_t::f32},  // a GPU's
    {"f16", "FP16", ov::element::Type_t::f16},
};

// Without these instructions sums of products of 8 bits are cut at 16, and nothing is gained.
bool multiplies_int8() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512vnni") != 0 || __builtin_cpu_supports("avxvnni") != 0;
#else
    return false;
#endif
}

std::string list(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

}  // namespace

std::string device_of(const std::string& name) {
    if (name == "cpu") return "CPU";
    throw MissingRuntime("device " + name + ": the openvino backend drives cpu only; use device cpu");
}

std::vector<std::string> native_precisions(ov::Core& core, const std::string& device) {
    const auto capabilities = core.get_property(device_of(device), ov::device::capabilities);
    std::vector<std::string> names;
    for (const Name& name : kNames) {
        if (std::ranges::find(capabilities, name.capability) != capabilities.end()) names.emplace_back(name.ours);
    }
    if (multiplies_int8() && std::ranges::find(capabilities, "INT8") != capabilities.end()) names.emplace_back("int8");
    return names;
}

ov::element::Type choose(const std::string& wanted, const std::vector<std::string>& native, const std::string& device) {
    const std::string& chosen = wanted == "auto" ? native.front() : wanted;
    if (chosen == "int8" && std::ranges::find(native, chosen) != native.end()) return choose("auto", native, device);
    const auto* known = std::ranges::find(kNames, chosen, [](const Name& name) { return std::string(name.ours); });
    if (known == std::end(kNames) && chosen != "int8") {
        throw InputError("precision: found \"" + wanted + "\", expected auto, f32, tf32, bf16, f16 or int8");
    }
    if (std::ranges::find(native, chosen) == native.end()) {
        throw MissingRuntime("precision " + chosen + ": device " + device + " has no instructions for it; it has " +
                             list(native));
    }
    return known->type;
}

std::string name_of(const ov::element::Type& type) { return type.get_type_name(); }

namespace {

using Node = std::shared_ptr<ov::Node>;

std::string fact(const Node& node, const char* key) {
    const auto& facts = node->get_rt_info();
    const auto found = facts.find(key);
    return found == facts.end() ? "" : found->second.as<std::string>();
}

std::vector<Node> in_order_of_execution(const ov::Model& runtime) {
    std::vector<Node> nodes = runtime.get_ordered_ops();
    const auto order = [](const Node& node) {
        const std::string text = fact(node, "execOrder");
        return text.empty() ? -1 : std::stol(text);
    };
    std::ranges::stable_sort(nodes, {}, order);
    return nodes;
}

bool is_held(const Node& node) {
    const std::string type = fact(node, "layerType");
    return type != "Const" && type != "Input" && type != "Output";
}

// Blocked layouts ("aBcde16b") fill the channels up to whole blocks: three channels may lie there as sixteen.
std::int64_t bytes_of(const ov::Output<const ov::Node>& output, const std::string& layouts) {
    const auto holds = [&](const char* text) { return layouts.find(text) != std::string::npos; };
    ov::Shape shape = output.get_shape();
    const std::size_t block = holds("16b") ? 16 : holds("8b") ? 8 : 1;
    if (shape.size() > 1) shape[1] = (shape[1] + block - 1) / block * block;
    return static_cast<std::int64_t>(ov::shape_size(shape) * output.get_element_type().size());
}

}  // namespace

std::int64_t most_alive(const ov::Model& runtime) {
    const std::vector<Node> nodes = in_order_of_execution(runtime);
    std::map<ov::Output<ov::Node>, std::size_t> last_read;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        for (const auto& input : nodes[i]->inputs()) last_read[input.get_source_output()] = i;
    }
    std::vector<std::int64_t> freed(nodes.size(), 0);
    std::int64_t alive = 0, most = 0;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        if (is_held(nodes[i])) {
            for (const auto& output : nodes[i]->outputs()) {
                const std::int64_t bytes = bytes_of(output, fact(nodes[i], "outputLayouts"));
                alive += bytes;
                const auto reader = last_read.find(output);
                freed[reader == last_read.end() ? i : std::max(i, reader->second)] += bytes;
            }
        }
        most = std::max(most, alive);
        alive -= freed[i];
    }
    return most;
}

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
