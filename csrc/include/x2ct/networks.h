// A bundle's three networks, compiled for a grid: whole where memory allows, in tiles where it doesn't.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "x2ct/backend.h"
#include "x2ct/bundle.h"
#include "x2ct/sampler.h"
#include "x2ct/tiling.h"
#include "x2ct/xray.h"

namespace x2ct {

/// What a model is compiled for.
struct PipelineOptions {
    std::string device = "cpu";
    std::string precision = "auto";       ///< of the denoiser; encoder and lift place pixels and always compute in f32
    int threads = 0;                      ///< 0 leaves it to the runtime
    std::array<std::int64_t, 3> shape{};  ///< of the volumes, multiples of the model's stride; zeros: the model's own
    std::array<double, 3> voxel_mm{};     ///< zeros: the model's own
    /// Bytes that the process may take; 0: what the machine has free. Where the whole volume does not fit, it is
    /// denoised in tiles.
    std::int64_t memory = 0;
    /// How far tiles reach over their part, in voxels; below 0: the denoiser's receptive radius, with which they give
    /// what the whole gives, to rounding. Less is faster and differs at the seams.
    std::int64_t halo = -1;
    std::string provider = {};  ///< see NetworkOptions
    std::map<std::string, std::string> provider_options = {};
    /// By a graph's file name in the bundle: the compiled engine that the backend opens in its place.
    std::map<std::string, std::string> engines = {};
};

/// How many float32 volumes of the grid a run holds at once: in the loop its registers, after it x and HU; and what
/// many samples' mean and spread, a preview, and consistency keep.
int volumes_kept(const Table& table, bool many, bool preview, bool consistency);

/// Three compiled networks for one grid, and the sampler around the denoiser.
///
/// A plan's memory is counted from what the runtime itself says: the networks are compiled for a small probe, their
/// scratch memory is read off the compiled graph and taken to grow with the voxels, as that of convolutions does. Where
/// lift and denoiser don't fit side by side (TilePlan::in_turn), each is let go of before the other runs.
class Networks {
  public:
    /// Compiles the encoder. Throws InputError for a grid or halo that the model can't take, MissingRuntime. `device`
    /// is where all of it runs, the one that options.device names; null: the CPU.
    Networks(Bundle bundle, Backend& backend, PipelineOptions options, std::shared_ptr<Device> device = nullptr);
    Networks(const Networks&) = delete;
    Networks& operator=(const Networks&) = delete;
    ~Networks() { let_go(); }

    const Bundle& bundle() const { return bundle_; }
    const Bundle::Grid& grid() const { return grid_; }

    const std::shared_ptr<Device>& device() const { return device_; }

    /// What fits, for runs that keep so many volumes; what was compiled before is let go of. Throws OutOfMemory if no
    /// tile does.
    TilePlan plan(int volumes);
    /// Whether the last plan() had to count: it may come out otherwise for another number of volumes.
    bool is_counted() const { return counted_; }

    /// Compiles the denoiser; what was compiled before goes first, and its conditions with it.
    void compile(const TilePlan& plan);
    /// The plan that was compiled.
    const TilePlan& compiled() const { return plan_; }

    /// Runs the encoder, and the lift or what will run it, and hands what they say to the denoiser.
    void condition_on(const Conditions& ready);

    /// Null before compile(); good until the next plan(), compile() or condition_on().
    const std::shared_ptr<Sampler>& sampler() const { return sampler_; }

    std::string encoder_precision() const { return encoder_->precision(); }
    std::string lift_precision() const { return lift_precision_; }  ///< "" before condition_on()
    std::string precision() const { return precision_; }            ///< the denoiser's; "" before compile()
    std::string runtime_version() const { return encoder_->runtime_version(); }

  private:
    std::shared_ptr<Network> load(const Graph& graph, const std::string& precision, std::map<std::string, Shape> shapes,
                                  bool replayed = false);
    std::shared_ptr<Network> denoiser_for(const Index& patch);
    std::shared_ptr<Network> lift_for(const Index& patch);
    void let_go() noexcept;
    void show(const Conditions& ready, Lift& lift);
    Shape views_shape() const;

    Bundle bundle_;
    Bundle::Grid grid_;
    Backend* backend_;
    PipelineOptions options_;
    std::shared_ptr<Device> device_;
    std::shared_ptr<Network> encoder_, denoiser_;
    std::shared_ptr<Lift> lift_;
    std::string precision_, lift_precision_;
    TilePlan plan_;
    bool counted_ = false;
    bool conditioned_ = false;  // since what is compiled was
    std::shared_ptr<Sampler> sampler_;
};

// Compiled engines: what a runtime opens in place of a bundle's ONNX graphs, made from them on the machine that runs
// it.

/// Names the compiled engines in `folder` for `options`, by the names that `x2ct build -o` and `x2ct export
/// --compiled` give them: GRAPH.plan for "tensorrt"; GRAPH.pt2 or GRAPH.pt for "torch", where options.provider is
/// "aoti", "torchscript", or "" for the first that is there; denoiser.PRECISION.onnx for "onnxruntime" in bf16 or f16.
/// Other backends open ONNX, and `folder` must be empty.
///
/// Plans and torch's files are code, and nothing here can tell who made them: they need `trust`. Throws InputError
/// without it, and for a folder that is of no use; MissingRuntime for an engine that isn't there.
void use_engines(PipelineOptions& options, const Bundle& bundle, const std::string& backend, const std::string& folder,
                 bool trust);

}  // namespace x2ct
