// Which nodes the runtime put on the CPU, as its log tells it (VerifyEachNodeIsAssignedToAnEp, verbose):
//
//   Node placements
//    Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2
//     Resize (/lift/up)
//     ...
//    All nodes placed on [CUDAExecutionProvider]. Number of nodes: 31         where there is but one provider
//
// Until interface 24 the runtime says it nowhere else. No types of the runtime in here.
#pragma once

#include <string>
#include <vector>

namespace x2ct::onnxruntime {

struct Placement {
    bool told = false;                ///< whether the log says anything about it
    std::vector<std::string> on_cpu;  ///< "Resize (/lift/up)"; "all nodes" where it doesn't list them
};

inline Placement placement(const std::vector<std::string>& log) {
    Placement found;
    bool listed = false;  // whether the lines that follow are nodes on the CPU
    for (const std::string& line : log) {
        const std::size_t begin = line.find_first_not_of(' ');
        if (begin == std::string::npos) continue;
        const std::string text = line.substr(begin);
        if (text.find("placed on [") != std::string::npos) {
            found.told = true;
            const bool cpu = text.find("[CPUExecutionProvider]") != std::string::npos;
            listed = cpu && !text.starts_with("All nodes");
            if (cpu && !listed) found.on_cpu.emplace_back("all nodes");
        } else if (listed && begin == 2) {
            found.on_cpu.push_back(text);
        } else {
            listed = false;
        }
    }
    return found;
}

}  // namespace x2ct::onnxruntime
