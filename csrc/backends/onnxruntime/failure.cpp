#include "failure.h"

#include <sstream>

namespace x2ct::onnxruntime {

std::string Failures::text_of(const std::exception& error) {
    std::istringstream words(error.what());
    std::string text, word;
    while (words >> word) {
        if (!word.starts_with("/onnxruntime_src/")) text += word + " ";
    }
    return one_line(text);
}

}  // namespace x2ct::onnxruntime
