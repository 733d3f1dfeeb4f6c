// From X-rays to a CT volume: a bundle's three networks and the sampler, for whoever embeds x2ct without Python.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "x2ct/backend.h"
#include "x2ct/bundle.h"
#include "x2ct/sampler.h"

namespace x2ct {

struct PipelineOptions {
    std::string device = "cpu";
    std::string precision = "auto";  ///< of the denoiser; encoder and lift place pixels and always compute in f32
    int threads = 0;                 ///< 0 leaves it to the runtime
};

/// One X-ray: line integrals of attenuation (dimensionless) [rows, columns], row 0 at the head, column 0 at the
/// patient's right, in a lateral at the front. They are copied.
struct XRay {
    int slot = 0;  ///< which of the bundle's views it is: 0 frontal, 1 lateral
    const float* line_integrals = nullptr;
    std::int64_t rows = 0, columns = 0;
    /// Row-major 3x4, patient mm to its pixels; without one the picture is the bundle's own view, pixel for pixel.
    std::optional<std::array<double, 12>> matrix;
};

struct SampleOptions {
    std::uint64_t seed = 0;
    std::uint32_t sample = 0;  ///< another number is another noise of the same seed
    int steps = 0;             ///< along the noise schedule; 0 is the bundle's
    std::string solver;        ///< one of solvers(); empty is the bundle's
    /// "tuned" or one of schedules(); empty is the bundle's tuned levels for these steps, or its schedule.
    std::string schedule;
    bool mean = false;                              ///< the posterior mean, one evaluation: none of the three above
    std::function<void(const Progress&)> progress;  ///< see RunOptions
    std::function<void(const Progress&, const float* hu)> preview = {};  ///< what the network makes of it so far, in HU
    int preview_every = 1;
    const std::atomic<bool>* cancel = nullptr;
};

/// One model, compiled for one device. Its methods may be called from any thread, one at a time: another call meanwhile
/// is refused with Error. After an exception it can be used again.
class Pipeline {
  public:
    /// Compiles the three networks. Throws InputError, MissingRuntime, OutOfMemory.
    Pipeline(Bundle bundle, Backend& backend, const PipelineOptions& options = {});
    ~Pipeline();

    const Bundle& bundle() const { return bundle_; }
    std::string precision() const { return denoiser_->precision(); }  ///< what the denoiser computes in
    std::int64_t voxels() const;

    /// Runs encoder and lift on one X-ray or more, each in a slot of its own. Throws InputError.
    void set_xrays(std::span<const XRay> xrays);

    /// One volume, float32 HU [X, Y, Z], z fastest, voxels() of them, patient mm with the origin at the grid's centre.
    /// The same X-rays, options and seed give the same bits. Throws InputError (also before set_xrays), Cancelled,
    /// OutOfMemory, Error, and what a callback throws.
    void run(const SampleOptions& options, float* hu);

    /// What run() would run.
    Table table(const SampleOptions& options) const;

    Timings timings() const { return sampler_->timings(); }

  private:
    std::unique_lock<std::mutex> enter();
    void condition(std::span<const XRay> xrays);

    Bundle bundle_;
    std::shared_ptr<Network> encoder_, lift_, denoiser_;
    std::unique_ptr<Session> encode_, lift_once_;
    std::unique_ptr<Sampler> sampler_;
    bool conditioned_ = false;
    std::mutex mutex_;
};

}  // namespace x2ct
