// Writes what the fuzzer of bundles starts from: a good model.json and good graphs.
#include <cstdio>
#include <fstream>
#include <string>

#include "tests/tiny.h"

int main(int count, char** arguments) {
    if (count != 2) return 2;
    const std::string folder = arguments[1];
    std::ofstream(folder + "/model", std::ios::binary) << '\0' << tiny::model_json();
    for (const auto& [name, content] : tiny::graphs())
        std::ofstream(std::string(folder).append("/").append(name), std::ios::binary) << '\1' << content;
    return 0;
}
