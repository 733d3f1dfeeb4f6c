// fuzz/ holds one libFuzzer target a door: whatever comes in, the answer is a result or an InputError.
//
// The bundle reader: a first byte that says whether the rest is a model.json or an ONNX graph; files on disk differ
// from these bytes only by what the reader of files checks, which test_bundle covers.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/manifest.h"
#include "core/onnxfile.h"
#include "x2ct/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view content(reinterpret_cast<const char*>(data) + 1, size - 1);
    try {
        if (data[0] % 2 == 0) {
            x2ct::read_manifest("model.json", content);
        } else {
            x2ct::read_graph("graph.onnx", content);
        }
    } catch (const x2ct::InputError&) {
        return 0;
    }
    return 0;
}
