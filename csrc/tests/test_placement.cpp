// What ONNX Runtime's log says about where nodes are.
#include "backends/onnxruntime/placement.h"
#include "check.h"

namespace {

using x2ct::onnxruntime::placement;

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

TESTS(nodes_on_the_cpu_are_named, a_list_ends_where_the_log_goes_on, all_on_one_provider_is_said_in_one_line,
      a_log_without_it_says_nothing)
