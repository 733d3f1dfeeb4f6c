// What a device must make of a whole study, beside the CPU: from X-rays to HU, and when networks are compiled anew. For
// the GPU itself (gpu.cpp), and for the CUDA device over an emulated runtime (test_cuda.cpp).
#pragma once

#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "device_laws.h"
#include "kernels/ray_kernel.h"
#include "tiny.h"
#include "x2ct/pipeline.h"

namespace laws {

/// The tiny bundle's networks, made of a device's rows and copies, so that any device computes the same bits:
/// features = views; c0 a sum of the coordinates with a line of the features in it; D = x / 2 + weight c0, with sigma
/// in the first voxel, and recordable. As TensorRT's does, a denoiser's session allocates when it is first evaluated.
class QueueBackend : public x2ct::Backend {
  public:
    explicit QueueBackend(std::shared_ptr<Device> device) : device_(std::move(device)) {}

    std::string version() const override { return ""; }
    std::vector<std::string> devices() const override { return {device_->name()}; }
    std::vector<std::string> precisions(const std::string&) const override { return {"f32"}; }
    std::unique_ptr<x2ct::Network> load(const x2ct::NetworkOptions& options) override {
        return std::make_unique<Net>(*this, std::filesystem::path(options.path).stem().string(), options.shapes);
    }

    float weight = 0.25F;  ///< of the denoisers that are loaded from here on

  private:
    class Net : public x2ct::Network {
      public:
        Net(QueueBackend& backend, std::string kind, const std::map<std::string, x2ct::Shape>& shapes)
            : device_(backend.device_), weight_(backend.weight), scratch_(backend.scratch_), kind_(std::move(kind)) {
            const tiny::Network network = tiny::networks().at(kind_);
            for (const auto& [name, axes] : network.inputs) inputs_.push_back({name, shapes.at(name)});
            x2ct::Shape output = shapes.at(kind_ == "encoder" ? "views" : kind_ == "lift" ? "coords" : "x");
            if (kind_ == "lift") output[1] = 1;
            outputs_.push_back({network.outputs[0].first, output});
        }
        const std::vector<x2ct::TensorInfo>& inputs() const override { return inputs_; }
        const std::vector<x2ct::TensorInfo>& outputs() const override { return outputs_; }
        std::string device() const override { return device_->name(); }
        std::string precision() const override { return "f32"; }
        std::string runtime_version() const override { return ""; }
        std::unique_ptr<x2ct::Session> session() override { return std::make_unique<Evaluation>(*this); }

      private:
        class Evaluation : public x2ct::Session {
          public:
            explicit Evaluation(Net& net) : net_(net), count_(x2ct::volume_of(net.outputs_[0].shape)) {}
            void set_input(const std::string& name, const float* data, const x2ct::Shape&) override {
                in_[name] = data;
            }
            void set_output(const std::string&, float* data, const x2ct::Shape&) override { out_ = data; }
            bool is_recordable() const override { return net_.kind_ == "denoiser"; }
            x2ct::TensorView output(const std::string&) override { return {out_, net_.outputs_[0].shape}; }
            void evaluate() override {
                if (out_ == nullptr) {
                    own_ = x2ct::Buffer(net_.device_, static_cast<std::size_t>(count_));
                    out_ = own_.data();
                }
                if (net_.kind_ == "encoder") sum({{1, in_.at("views")}});
                if (net_.kind_ == "lift") {
                    const float* const coords = in_.at("coords");
                    sum({{0.5F, coords}, {0.25F, coords + count_}, {-1, coords + 2 * count_}});
                    copy(in_.at("features") + 12L * tiny::kDetector, tiny::kGrid);
                }
                if (net_.kind_ == "denoiser") {
                    if (scratch_.data() == nullptr) scratch_ = x2ct::Buffer(net_.device_, net_.scratch_ += 4096);
                    sum({{0.5F, in_.at("x")}, {net_.weight_, in_.at("c0")}});
                    copy(in_.at("sigma"), 1);
                }
            }

          private:
            void sum(const std::vector<std::pair<float, const float*>>& terms) {
                RowKernel row;
                row.count = count_;
                row.new_y = out_;
                const float** const from[] = {&row.x, &row.y, &row.h[1]};
                float* const weights[] = {&row.to_y.x, &row.to_y.y, &row.to_y.h[1]};
                for (std::size_t k = 0; k < terms.size(); ++k) std::tie(*weights[k], *from[k]) = terms[k];
                net_.device_->run(row);
            }
            void copy(const float* from, std::int64_t count) {
                const x2ct::Index line = {1, 1, count};
                net_.device_->copy({from, line, {}, out_, {1, 1, count_}, {}, line});
            }

            Net& net_;
            std::int64_t count_;
            std::map<std::string, const float*> in_;
            float* out_ = nullptr;
            x2ct::Buffer own_, scratch_;
        };

        std::shared_ptr<Device> device_;
        float weight_;
        std::size_t& scratch_;
        std::string kind_;
        std::vector<x2ct::TensorInfo> inputs_, outputs_;
    };

    std::shared_ptr<Device> device_;
    std::size_t scratch_ = 4096;  // floats of the latest session: another number each time, so that none is kept
};

/// The tiny bundle's pipeline on a device, its memory counted, so that another number of volumes compiles anew.
struct Study {
    explicit Study(const std::shared_ptr<Device>& on) : device(on), backend(on) {
        tiny::write(folder);
        x2ct::PipelineOptions options;
        options.device = on->name();
        options.memory = std::int64_t{8} << 30;
        pipeline = std::make_unique<x2ct::Pipeline>(x2ct::open_bundle(folder.path()), backend, options, on);
    }
    void show(unsigned seed) {
        auto image = numbers(static_cast<std::size_t>(tiny::kDetector) * tiny::kDetector, seed);
        for (float& value : image) value = 1 + std::tanh(value) / 2;
        const x2ct::XRay xray{0, image.data(), tiny::kDetector, tiny::kDetector, {}};
        pipeline->set_xrays({&xray, 1});
    }
    std::vector<float> run(int samples = 1) {
        x2ct::SampleOptions options;
        options.samples = samples;
        std::vector<float> hu(static_cast<std::size_t>(pipeline->voxels()));
        pipeline->run(options, hu.data());
        return hu;
    }

    tiny::Folder folder;
    std::shared_ptr<Device> device;
    QueueBackend backend;
    std::unique_ptr<x2ct::Pipeline> pipeline;
};

inline void a_study_is_the_cpus() {
    Study here(cpu()), there(gpu());
    for (unsigned seed = 1; seed < 4; ++seed) {
        here.show(seed), there.show(seed);
        const auto wanted = here.run();
        for (int turn = 0; turn < 3; ++turn) CHECK(same(there.run(), wanted));
    }
}

/// Another network may get the addresses of the one before it: what was recorded of that one must not be replayed.
inline void networks_that_are_compiled_anew_are_recorded_anew() {
    Study here(cpu()), there(gpu());
    here.show(1), there.show(1);
    std::vector<std::vector<float>> one;
    for (int turn = 0; turn < 4; ++turn) {
        const int samples = 1 + turn % 2;
        here.backend.weight = there.backend.weight = 0.25F * static_cast<float>(turn + 1);
        one.push_back(here.run(samples));
        for (int again = 0; again < 3; ++again) CHECK(same(there.run(samples), one.back()));
    }
    CHECK(!same(one[0], one[2]));  // it was compiled anew
}

inline void coordinates_are_the_double_precision_ones() {
    const x2ct::Index grid = {24, 40, 17}, tile = {5, 7, 9}, origin = {3, 33, 8};
    const std::array<double, 3> spacing = {2.5, 0.7031, 1.0 / 3};
    std::vector<float> wanted;
    for (int axis = 0; axis < 3; ++axis) {
        for (std::int64_t i = 0; i < tile[0] * tile[1] * tile[2]; ++i) {
            const x2ct::Index at = {i / (tile[1] * tile[2]), i / tile[2] % tile[1], i % tile[2]};
            const double from_centre =
                static_cast<double>(origin[axis] + at[axis]) - static_cast<double>(grid[axis] - 1) / 2;
            wanted.push_back(static_cast<float>(from_centre * spacing[axis] / 100));
        }
    }
    for (const auto& device : {cpu(), gpu()}) {
        const x2ct::Buffer to(device, wanted.size());
        x2ct::kernels::Coordinates work{{}, {}, {}, {}, 100, to.data()};
        for (int axis = 0; axis < 3; ++axis) {
            work.tile[axis] = tile[axis], work.origin[axis] = origin[axis], work.spacing_mm[axis] = spacing[axis];
            work.middle[axis] = static_cast<double>(grid[axis] - 1) / 2;
        }
        device->run(x2ct::RayKernel{work});
        CHECK(same(values_of(*device, to), wanted));
    }
}

/// Within the window and beyond it, at the knots and beside them; NaN stays.
inline void hu_are_the_hosts() {
    const x2ct::Intensity map{{-1000, -150, 600, 1500}, {-1, -0.45, 0.6, 1}};
    constexpr float kFar = std::numeric_limits<float>::infinity();
    std::vector<float> values = numbers(4099, 3);
    for (const double knot : map.x) {
        const auto at = static_cast<float>(knot);
        for (const float value : {at, std::nextafter(at, -kFar), std::nextafter(at, kFar)}) values.push_back(value);
    }
    for (const float value : {0.0F, -0.0F, kFar, -kFar, 1e-40F, std::nanf("")}) values.push_back(value);
    std::vector<float> wanted(values.size());
    map.to_hu(values.data(), wanted.data(), static_cast<std::int64_t>(values.size()));
    for (const auto& device : {cpu(), gpu()}) {
        const x2ct::Buffer there = on(device, values), hu = x2ct::doubles_on(device, map.hu),
                           x = x2ct::doubles_on(device, map.x);
        device->run(x2ct::RayKernel{x2ct::kernels::ToHu{{{static_cast<std::int64_t>(values.size())},
                                                         reinterpret_cast<const double*>(x.data()),
                                                         reinterpret_cast<const double*>(hu.data()),
                                                         static_cast<int>(map.x.size()),
                                                         there.data(),
                                                         nullptr,
                                                         there.data()}}});
        CHECK(same(values_of(*device, there), wanted));
    }
}

}  // namespace laws

#define PIPELINE_LAWS                                                                   \
    laws::a_study_is_the_cpus, laws::networks_that_are_compiled_anew_are_recorded_anew, \
        laws::coordinates_are_the_double_precision_ones, laws::hu_are_the_hosts
