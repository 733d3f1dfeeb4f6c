// A bundle of a few hundred bytes, and a backend that computes its networks: the whole way without a runtime.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/bundle_files.h"
#include "x2ct/backend.h"

namespace tiny {

inline constexpr int kGrid = 16, kDetector = 24;

// ---------------------------------------------------------------------------------------------- protobuf, written

inline std::string varint(std::uint64_t value) {
    std::string text;
    for (; value >= 0x80; value >>= 7) text += static_cast<char>(value | 0x80);
    return text + static_cast<char>(value);
}
inline std::string number(int field, std::uint64_t value) { return varint(field * 8) + varint(value); }
inline std::string bytes(int field, const std::string& content) {
    return varint(field * 8 + 2) + varint(content.size()) + content;
}

/// A tensor's axes: "1", or the name of a free one.
using Axes = std::vector<std::string>;
using Ports = std::vector<std::pair<std::string, Axes>>;

inline std::string value_info(const std::string& name, const Axes& axes) {
    std::string shape;
    for (const auto& axis : axes) {
        const bool size = axis.find_first_not_of("0123456789") == std::string::npos;
        shape += bytes(1, size ? number(1, std::stoull(axis)) : bytes(2, axis));
    }
    return bytes(1, name) + bytes(2, bytes(1, number(1, 1) + bytes(2, shape)));
}

/// An ONNX model with these ports and one node.
inline std::string onnx(const Ports& inputs, const Ports& outputs, const std::string& more = "") {
    std::string graph = bytes(1, bytes(4, "Identity"));
    for (const auto& [name, axes] : inputs) graph += bytes(11, value_info(name, axes));
    for (const auto& [name, axes] : outputs) graph += bytes(12, value_info(name, axes));
    return number(1, 8) + bytes(7, graph) + bytes(8, number(2, 18)) + more;
}

// ---------------------------------------------------------------------------------------------- the bundle

struct Network {
    Ports inputs, outputs;
};

inline std::map<std::string, Network> networks() {
    const std::string side = std::to_string(kDetector);
    const Axes features = {"1", "2", "1", side, side}, valid = {"1", "2"}, whole = {"N", "1", "X", "Y", "Z"};
    const Axes c0 = {"1", "1", "X", "Y", "Z"};
    return {{"encoder", {{{"views", features}, {"valid", valid}}, {{"features", features}}}},
            {"lift",
             {{{"features", features},
               {"P", {"1", "2", "3", "4"}},
               {"coords", {"1", "3", "X", "Y", "Z"}},
               {"valid", valid}},
              {{"c0", c0}}}},
            {"denoiser", {{{"x", whole}, {"sigma", {"N"}}, {"c0", c0}}, {{"denoised", whole}}}}};
}

inline std::map<std::string, std::string> graphs() {
    std::map<std::string, std::string> files;
    for (const auto& [name, network] : networks()) files[name + ".onnx"] = onnx(network.inputs, network.outputs);
    return files;
}

inline std::string ports_json(const Ports& ports) {
    std::string text;
    for (const auto& [name, axes] : ports) {
        std::string shape;
        for (const auto& axis : axes) {
            const bool size = axis.find_first_not_of("0123456789") == std::string::npos;
            const char* const quote = size ? "" : "\"";
            shape.append(shape.empty() ? "" : ", ").append(quote).append(axis).append(quote);
        }
        text.append(text.empty() ? "" : ", ").append(R"({"name": ")").append(name);
        text.append(R"(", "dtype": "float32", "shape": [)").append(shape).append("]}");
    }
    return "[" + text + "]";
}

inline std::string model_json() {
    const std::string n = std::to_string(kGrid), d = std::to_string(kDetector), side = "[" + d + ", " + d + "]";
    const auto view = [&](const std::string& name, const std::string& rest) {
        return R"({"name": ")" + name + R"(", "shape": )" + side + R"(, "spacing_mm": [8, 8], )" + rest + "}";
    };
    std::string nets, files;
    for (const auto& [name, network] : networks()) {
        nets.append(nets.empty() ? "\"" : ", \"").append(name).append(R"(": {"file": ")").append(name);
        nets.append(R"(.onnx", "inputs": )").append(ports_json(network.inputs));
        nets.append(R"(, "outputs": )").append(ports_json(network.outputs));
        nets.append(name == "encoder" ? "}" : R"(, "receptive_radius": 0})");
    }
    for (const auto& [name, content] : graphs()) {
        files.append(files.empty() ? "\"" : ", \"").append(name).append(R"(": {"sha256": ")");
        files.append(x2ct::sha256(content))
            .append(R"(", "bytes": )")
            .append(std::to_string(content.size()))
            .append("}");
    }
    return R"({"schema": 1, "name": "tiny", "x2ct": "0.1.0", "created": "2026-01-01T00:00:00Z", "grid": {"shape": [)" +
           n + ", " + n + ", " + n + R"(], "spacing_mm": [10, 10, 10]}, "intensity": {"hu": [-1000, 0, 1500], )" +
           R"("x": [-1, 0, 1]}, "xray": {"shape": )" + side +
           R"(, "spacing_mm": [8, 8], "reference_p99": [6, 6]}, "geometry": {"schema": 1, "views": [)" +
           view("ap", R"("beam": "parallel")") + ", " +
           view("lateral", R"("matrix": [[0, -0.125, 0, 11.5], [0, 0, -0.125, 11.5], [0, 0, 0, 1]])") +
           R"(]}, "diffusion": {"sigma_data": 0.5, "sigma_min": 0.05, "sigma_max": 10, "schedule": "log-snr", )" +
           R"("solver": "dpmpp-2m", "steps": 4, "schedules": {"3": [10, 1, 0.05]}}, "patch": {"sizes": [[)" + n + ", " +
           n + ", " + n + R"(]], "probabilities": [1], "stride": 8}, "networks": {)" + nets +
           R"(}, "parity": {}, "provenance": {"note": "none"}, "files": {)" + files + "}}";
}

/// A folder of its own under the system's temporary one, gone when this goes.
class Folder {
  public:
    Folder() {
        std::string name = (std::filesystem::temp_directory_path() / "x2ct-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
        path_ = name;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    const std::string& path() const { return path_; }
    void write(const std::string& name, const std::string& content) const {
        std::ofstream(path_ + "/" + name, std::ios::binary) << content;
    }

  private:
    std::string path_;
};

/// Writes the bundle; `text` is another model.json.
inline void write(const Folder& folder, const std::string& text = model_json()) {
    for (const auto& [name, content] : graphs()) folder.write(name, content);
    folder.write("model.json", text);
}

// ---------------------------------------------------------------------------------------------- the backend

/// c0 is the mean of all views' pixels; D of a normal distribution with the mean tanh(c0) and the deviation 0.5.
class AnalyticSession : public x2ct::Session {
  public:
    AnalyticSession(std::string kind, x2ct::Shape output) : kind_(std::move(kind)), shape_(std::move(output)) {}

    void set_input(const std::string& name, const float* data, const x2ct::Shape& shape) override {
        inputs_[name] = {data, shape};
    }
    void set_output(const std::string&, float* data, const x2ct::Shape&) override { bound_ = data; }
    x2ct::TensorView output(const std::string&) override { return {bound_ ? bound_ : own_.data(), shape_}; }

    void evaluate() override {
        const auto count = x2ct::volume_of(shape_);
        own_.resize(static_cast<std::size_t>(bound_ ? 0 : count));
        float* const to = bound_ ? bound_ : own_.data();
        const float* const from = inputs_.at(kind_ == "encoder" ? "views" : kind_ == "lift" ? "features" : "x").data;
        if (kind_ == "encoder") std::copy_n(from, count, to);
        if (kind_ == "lift") std::fill_n(to, count, mean(inputs_.at("features")));
        if (kind_ == "denoiser") {
            const double sigma = *inputs_.at("sigma").data, keep = 0.25 / (0.25 + sigma * sigma);
            const float* const c0 = inputs_.at("c0").data;
            for (std::int64_t i = 0; i < count; ++i) {
                const double middle = std::tanh(c0[i]);
                to[i] = static_cast<float>(middle + keep * (from[i] - middle));
            }
        }
    }

  private:
    static float mean(const x2ct::TensorView& view) {
        double sum = 0;
        const auto count = x2ct::volume_of(view.shape);
        for (std::int64_t i = 0; i < count; ++i) sum += view.data[i];
        return static_cast<float>(sum / static_cast<double>(count));
    }

    std::string kind_;
    x2ct::Shape shape_;
    std::map<std::string, x2ct::TensorView> inputs_;
    float* bound_ = nullptr;
    std::vector<float> own_;
};

class AnalyticNetwork : public x2ct::Network {
  public:
    AnalyticNetwork(std::string kind, std::vector<x2ct::TensorInfo> inputs, std::vector<x2ct::TensorInfo> outputs)
        : kind_(std::move(kind)), inputs_(std::move(inputs)), outputs_(std::move(outputs)) {}

    const std::vector<x2ct::TensorInfo>& inputs() const override { return inputs_; }
    const std::vector<x2ct::TensorInfo>& outputs() const override { return outputs_; }
    std::string device() const override { return "cpu"; }
    std::string precision() const override { return "f32"; }
    std::string runtime_version() const override { return "analytic"; }
    std::unique_ptr<x2ct::Session> session() override {
        return std::make_unique<AnalyticSession>(kind_, outputs_[0].shape);
    }

  private:
    std::string kind_;
    std::vector<x2ct::TensorInfo> inputs_, outputs_;
};

class AnalyticBackend : public x2ct::Backend {
  public:
    std::string version() const override { return "analytic"; }
    std::vector<std::string> devices() const override { return {"cpu"}; }
    std::vector<std::string> precisions(const std::string&) const override { return {"f32"}; }
    std::unique_ptr<x2ct::Network> load(const x2ct::NetworkOptions& options) override {
        const std::string kind = std::filesystem::path(options.path).stem().string();
        const Network network = networks().at(kind);
        std::vector<x2ct::TensorInfo> inputs;
        for (const auto& [name, axes] : network.inputs) inputs.push_back({name, options.shapes.at(name)});
        const char* const like = kind == "encoder" ? "views" : kind == "lift" ? "coords" : "x";
        x2ct::Shape output = options.shapes.at(like);
        output[1] = kind == "lift" ? 1 : output[1];
        return std::make_unique<AnalyticNetwork>(kind, std::move(inputs),
                                                 std::vector<x2ct::TensorInfo>{{network.outputs[0].first, output}});
    }
};

}  // namespace tiny
