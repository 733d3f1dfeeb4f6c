// What the ONNX Runtime backend decides without the runtime: on what a network runs and with which options, also on a
// GPU, and what the runtime's log says about where nodes are.
#include <string>
#include <vector>

#include "backends/onnxruntime/placement.h"
#include "backends/onnxruntime/target.h"
#include "check.h"
#include "x2ct/error.h"

namespace {

using x2ct::NetworkOptions;
using x2ct::onnxruntime::decide;
using x2ct::onnxruntime::placement;
using x2ct::onnxruntime::precisions_of;
using x2ct::onnxruntime::Target;

NetworkOptions options_on(const std::string& device, const std::string& precision = "f32") {
    NetworkOptions options;
    options.device = device, options.precision = precision;
    return options;
}

Target on_gpu(const std::string& precision, const x2ct::onnxruntime::Options& asked = {}) {
    NetworkOptions options = options_on("cuda:1", precision);
    options.provider_options = asked;
    return decide(options);
}

// Else seconds go by at the first evaluation, and two samplers differ in the last bits.
void a_convolutions_kernel_is_found_by_rules_unless_an_option_says_otherwise() {
    CHECK(on_gpu("tf32").options.at("cudnn_conv_algo_search") == "HEURISTIC");
    const Target asked = on_gpu("tf32", {{"cudnn_conv_algo_search", "EXHAUSTIVE"}});
    CHECK(asked.options.at("cudnn_conv_algo_search") == "EXHAUSTIVE");
}

void a_gpu_takes_graphs_that_are_typed_in_bf16_and_f16() {
    for (const char* precision : {"bf16", "f16"}) {
        const Target target = on_gpu(precision);
        CHECK(target.is_typed && target.precision == precision && target.device == "cuda:1" && target.index == 1);
    }
    CHECK(!on_gpu("f32").is_typed && on_gpu("f32").options.at("use_tf32") == "0");
    CHECK(on_gpu("auto").precision == "tf32" && on_gpu("auto").options.at("use_tf32") == "1");
    CHECK_THROWS(x2ct::MissingRuntime, on_gpu("int8"));
    CHECK((precisions_of("cuda") == std::vector<std::string>{"tf32", "f32", "bf16", "f16"}));
    CHECK((precisions_of("cpu") == std::vector<std::string>{"f32"}));
}

void only_what_is_replayed_on_the_callers_stream_is_recorded() {
    int stream = 0;
    for (const bool is_replayed : {false, true}) {
        for (void* const on : {static_cast<void*>(nullptr), static_cast<void*>(&stream)}) {
            NetworkOptions options = options_on("cuda");
            options.replayed = is_replayed, options.stream = on;
            const Target target = decide(options);
            CHECK(target.records == (is_replayed && on != nullptr));
            CHECK(target.options.contains("enable_cuda_graph") == target.records);
            options.provider_options = {{"enable_cuda_graph", "1"}};
            CHECK(decide(options).records == target.records && decide(options).options == target.options);
            options.provider_options = {{"enable_cuda_graph", "0"}};
            CHECK(!decide(options).records);
        }
    }
}

void what_device_and_precision_say_no_option_says() {
    for (const char* key : {"device_id", "user_compute_stream", "use_tf32"}) {
        CHECK_THROWS(x2ct::InputError, on_gpu("f32", {{key, "1"}}));
    }
    NetworkOptions options = options_on("cpu");
    options.provider = "cuda";
    CHECK_THROWS(x2ct::InputError, decide(options));
    options.provider = "", options.provider_options = {{"cudnn_conv_algo_search", "DEFAULT"}};
    CHECK_THROWS(x2ct::InputError, decide(options));
}

void nodes_on_the_cpu_are_named() {
    const auto found = placement({"Node placements", " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2",
                                  "  Resize (/lift/up)", "  Shape (/lift/shape)",
                                  " Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 1", "  Conv (/lift/in)",
                                  "SaveMLValueNameIndexMapping"});
    CHECK(found.told);
    CHECK((found.on_cpu == std::vector<std::string>{"Resize (/lift/up)", "Shape (/lift/shape)"}));
}

void a_list_ends_where_the_log_goes_on() {
    const auto found = placement(
        {" Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1", "  Resize (/lift/up)", "Done saving"});
    CHECK((found.on_cpu == std::vector<std::string>{"Resize (/lift/up)"}));
}

void all_on_one_provider_is_said_in_one_line() {
    const auto cuda = placement({" All nodes placed on [CUDAExecutionProvider]. Number of nodes: 31", "  else"});
    CHECK(cuda.told && cuda.on_cpu.empty());
    const auto cpu = placement({" All nodes placed on [CPUExecutionProvider]. Number of nodes: 31", "  else"});
    CHECK(cpu.told && cpu.on_cpu == std::vector<std::string>{"all nodes"});
}

void a_log_without_it_says_nothing() {
    CHECK(!placement({}).told);
    CHECK(!placement({"Initializing session.", "", "  Resize (/lift/up)"}).told);
}

}  // namespace

TESTS(a_convolutions_kernel_is_found_by_rules_unless_an_option_says_otherwise,
      a_gpu_takes_graphs_that_are_typed_in_bf16_and_f16, only_what_is_replayed_on_the_callers_stream_is_recorded,
      what_device_and_precision_say_no_option_says, nodes_on_the_cpu_are_named, a_list_ends_where_the_log_goes_on,
      all_on_one_provider_is_said_in_one_line, a_log_without_it_says_nothing)
