#include "liveness.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace x2ct::openvino {
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

}  // namespace x2ct::openvino
