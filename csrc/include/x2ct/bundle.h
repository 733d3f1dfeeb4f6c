// The model bundle: a folder NAME.x2ct/ with model.json and three ONNX graphs. docs/bundle.md has the format.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "x2ct/network.h"
#include "x2ct/view.h"

namespace x2ct {

/// One axis of a declared tensor: a size, or the name of a free one ("N", "X", "X/2").
struct Extent {
    std::int64_t size = 0;
    std::string free;

    bool operator==(const Extent&) const = default;
};

struct Tensor {
    std::string name, dtype;
    std::vector<Extent> shape;

    bool operator==(const Tensor&) const = default;
};

/// "x float32 [N, 1, X, Y, Z]"
std::string to_string(const Tensor& tensor);

/// One network: its file in the bundle, and its inputs and outputs in order.
struct Graph {
    std::string file;
    std::vector<Tensor> inputs, outputs;
    Int8Ranges int8;                     ///< what `x2ct quantize` found, of the denoiser; empty: it can't be had
    std::int64_t receptive_radius = -1;  ///< how far in voxels its output looks at its input; -1 is unknown
};

/// The monotone, piecewise linear map between HU and the network's unit x, given by its knots.
struct Intensity {
    std::vector<double> hu, x;

    /// x to HU, clipped to the window; `to` may be where x is. `threads` 0 takes all; the result does not depend on it.
    void to_hu(const float* given, float* to, std::int64_t count, int threads = 1) const;
};

struct BundleFile {
    std::string sha256;
    std::int64_t bytes = 0;
};

inline constexpr int kBundleSchema = 1;
inline constexpr std::uint64_t kOpset = 18;  ///< of the graphs: what OpenVINO, ONNX Runtime and TensorRT 10 all read
inline constexpr std::int64_t kMostManifestBytes = 4 << 20;

/// An opened bundle, all of it checked. Lengths in mm; x is the network's unit.
struct Bundle {
    std::string path;      ///< the folder
    std::string checksum;  ///< SHA-256 of model.json, which holds those of the other files: it identifies the model
    std::string name, version, created;

    struct Grid {
        std::array<std::int64_t, 3> shape{};  ///< voxels along x, y, z
        std::array<double, 3> spacing_mm{};
    } grid;
    Intensity intensity;
    struct XRays {  ///< the encoder's pictures
        std::int64_t rows = 0, columns = 0;
        double row_mm = 0, column_mm = 0;
        std::vector<double> reference_p99;  ///< one a view
    } xray;
    std::vector<View> views;  ///< by slot: 0 frontal, 1 lateral
    struct Diffusion {
        double sigma_data = 0, sigma_min = 0, sigma_max = 0;
        std::string schedule, solver;
        int steps = 0;
        std::map<int, std::vector<double>> schedules;  ///< tuned noise levels by their number
        /// What several samples' standard deviation is multiplied by, by the number of steps.
        std::map<int, double> deviation_scale;
        /// Trained on patients' mirror images too: the posterior mean is that of the patient's and the mirror image's.
        bool mirror = false;
    } diffusion;
    struct Patch {
        std::vector<std::array<std::int64_t, 3>> sizes;
        std::vector<double> probabilities;
        std::int64_t stride = 0;
    } patch;
    Graph encoder, lift, denoiser;
    std::map<std::string, BundleFile> files;

    std::string file_of(const Graph& graph) const { return path + "/" + graph.file; }
};

/// Opens a bundle and checks the whole of it: every field of model.json, size and SHA-256 of every file, each graph's
/// inputs and outputs, and that no graph refers to anything outside its file. Nothing is executed, nothing outside of
/// the folder is read, and symbolic links aren't followed. Throws InputError that names file and field.
Bundle open_bundle(const std::string& folder);

/// A bundle, and its model.json as JSON text: each view by its matrix, and the defaults of fields that were left out.
/// Sections that the core has no use for (parity, provenance, xray_statistics) stand as they are.
struct OpenedBundle {
    Bundle bundle;
    std::string manifest;
};

/// Opens a bundle as `open_bundle` does, for a caller that reads more of model.json than the core does.
OpenedBundle open_bundle_with_manifest(const std::string& folder);

/// A bundle that was checked before: only model.json is read. Throws InputError if that is another than the one with
/// this `checksum`.
Bundle reopen_bundle(const std::string& folder, const std::string& checksum);

}  // namespace x2ct
