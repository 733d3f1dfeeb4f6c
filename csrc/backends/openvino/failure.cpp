#include "failure.h"

#include <sstream>

namespace x2ct::openvino {

std::string Failures::text_of(const std::exception& error) {
    std::istringstream lines(error.what());
    std::string text, line;
    while (std::getline(lines, line)) {
        const bool is_place = line.starts_with("Exception from ") || line.find(" failed at ") != std::string::npos;
        if (!is_place) text += line + "\n";
    }
    return one_line(text);
}

}  // namespace x2ct::openvino
