// fuzz/ holds one libFuzzer target a door: whatever comes in, the answer is a result or an InputError.
//
// The bundle reader: a first byte that says whether the rest is a model.json, an ONNX graph or a geometry file; files
// on disk differ from these bytes only by what the reader of files checks, which tests/test_bundle.py covers.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/bundle_files.h"
#include "core/manifest.h"
#include "x2ct/error.h"
#include "x2ct/view.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view content(reinterpret_cast<const char*>(data) + 1, size - 1);
    try {
        if (data[0] % 3 == 0) {
            x2ct::read_manifest("model.json", content);
        } else if (data[0] % 3 == 1) {
            x2ct::read_graph("graph.onnx", content);
        } else {
            x2ct::read_geometry("geometry.json", content);
        }
    } catch (const x2ct::InputError&) {
        return 0;
    }
    return 0;
}
