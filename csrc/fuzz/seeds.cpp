// Writes what the fuzzer of bundles starts from: a good model.json, good graphs and a geometry file.
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
    std::ofstream(folder + "/geometry", std::ios::binary)
        << '\2' << R"({"schema": 1, "views": [{"name": "ap", "shape": [9, 9], "spacing_mm": [1, 1], "beam": "cone", )"
        << R"("angle_deg": 3, "tilt_deg": 5, "isocentre_mm": [0, 1, 2], "sod_mm": 1500, "sdd_mm": 1800}]})";
    return 0;
}
