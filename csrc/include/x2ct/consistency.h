// Data consistency: pulling a denoised volume towards the X-rays that it was made from.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "x2ct/bundle.h"
#include "x2ct/network.h"
#include "x2ct/projector.h"
#include "x2ct/sampler.h"
#include "x2ct/xray.h"

namespace x2ct {

/// The network's unit and attenuation: the knots of a piecewise linear map, both strictly increasing. Outside of the
/// knots x means what the nearest knot does; mu is per mm, 0 or more.
struct AttenuationKnots {
    std::vector<double> x;
    std::vector<double> mu;
};

/// The map between x and attenuation (kWaterPerMm max(0, 1 + HU / 1000)) by its knots, from where mu rises.
AttenuationKnots attenuation_knots(const Intensity& intensity);

/// A voxel grid whose patient mm have their origin in the middle.
VolumeGrid volume_grid(const Bundle::Grid& grid);

/// After which of a run's evaluations, from 1, D is pulled: none for "off", the "last", "every" one, or those that are
/// named, "3,5,6". Throws InputError for other words and for evaluations that there are not.
std::vector<int> pulled_after(const std::string& when, int evaluations);

struct ConsistencyOptions {
    double gamma = 1;  ///< strength; at 1 a ray that crosses the whole grid alone keeps half of its residual, 0 is off
    std::vector<int> evaluations = {};  ///< after which, from 1; none: after each
    int rounds = 0;                     ///< of solving and clamping; 0: 4 with the closed form, 2 with CG
    int cg_steps = 3;                   ///< a round, where there is no closed form
    bool closed = true;                 ///< use the closed form where there is one
    int threads = 0;                    ///< of the host, 0: all; the result doesn't depend on it
};

/// What became of one X-ray.
struct ViewConsistency {
    std::string name;
    double rays = 0;   ///< the share that counts of the rays that meet the body and the grid
    double scale = 1;  ///< a and b of y = a A(D) + b in the latest application; 1 and 0 for a calibrated X-ray
    double offset = 0;
    double rms_before = 0;  ///< of y - A(D) over the rays that count, a line integral
    double rms_after = 0;
};

/// Replaces D's attenuation mu by
///
///     z = argmin 1/2 |z - mu|^2 + gamma / (2 s^2) |A z - y|^2     with z between the first and the last knot's mu,
///
/// A the line integrals along the rays that count, s^2 the largest column sum of A^T A over the number of views. By
/// duality z = clamp(mu + A^T l), and l is found in rounds of
///
///     l += (e + A A^T)^-1 (y - A z(l) - e l),     e = s^2 / gamma,
///
/// of which the first is the answer without the clamp, (1 + A^T A / e)^-1 (mu + A^T y / e), and each raises the dual's
/// value, because the clamp only lowers its curvature. The inverse is closed for one or two parallel views along
/// different grid axes whose pixels are voxels, and a few steps of CG otherwise. A run's l is where the next
/// application starts from.
///
/// Pixels finer than the voxels are averaged over blocks. Only rays that miss the body outside of the grid count: see
/// rays_within.
///
/// Volumes and rays lie on the sampler's device, and what is done to them is queued there. To the host come the rays'
/// integrals of D, once before a pull and once after it, for the fit and the report, CG's vectors, which are no larger,
/// and D's attenuation once a run, before its first pull.
class Consistency : public Correction {
  public:
    /// Throws InputError for sizes that don't match, or if no ray counts.
    Consistency(const VolumeGrid& grid, AttenuationKnots knots, std::vector<MeasuredView> views,
                const ConsistencyOptions& options);
    ~Consistency() override;

    /// On any: moves there. It begins on the host.
    bool works_on(const std::shared_ptr<Device>& device) override;

    /// D in the network's unit. Throws Error where an X-ray can't be fitted.
    void apply(int row, int rows, double sigma, float* denoised) override;

    /// The same for attenuation on the host, from l = 0: mu [X, Y, Z] is overwritten.
    void pull(float* mu);

    /// Attenuation per mm [X, Y, Z] of D before the first data-consistency step of the latest run, on the host; empty
    /// before one. Good until the next run begins.
    std::span<const float> uncorrected() const;

    const std::vector<ViewConsistency>& views() const { return report_; }
    bool is_closed_form() const { return closed_; }
    int rounds() const { return options_.rounds; }
    const Shape& shape() const { return shape_; }

  private:
    struct Place;  // a device, and all that lies there

    std::unique_ptr<Place> place_on(const std::shared_ptr<Device>& device) const;
    void forget();
    void solve();
    void move_to_dual();
    std::vector<float> fitted(const std::vector<float>& seen);
    void report_rms(const std::vector<float>& target, const std::vector<float>& seen, double ViewConsistency::* where);

    VolumeGrid grid_;
    Shape shape_;
    AttenuationKnots knots_;
    ConsistencyOptions options_;
    std::vector<DetectorView> detectors_;
    std::vector<bool> calibrated_;
    bool closed_ = false;
    double scale_ = 1;                      // s^2, mm^2
    std::vector<float> measured_, counts_;  // of the rays
    std::vector<ViewConsistency> report_;
    std::unique_ptr<Place> place_;
};

/// For each view the rays [rows, cols] that can be taken to lie in the grid as far as they meet the body: 1, else 0.
///
/// The body lies where every view sees more than `air` (the visual hull); what a detector doesn't show is taken to go
/// on as at its edge, up to 300 mm from the grid's centre. Each view spreads a ray's value over the ray's length in the
/// hull; the least that any view says of a place is taken for its attenuation, and a ray counts if it gathers no more
/// than `air` outside of the grid. Of one view alone hardly more counts than the rays through air.
std::vector<std::vector<std::uint8_t>> rays_within(const VolumeGrid& grid, const std::vector<MeasuredView>& views,
                                                   int threads = 0);

inline constexpr double kWaterPerMm = 0.02;  ///< attenuation of water, at about 70 keV
inline constexpr double kUsualGamma = 10;    ///< chosen on the validation patient: benchmarks/consistency.py

/// A line integral below this (2.5 mm of water) is air.
inline constexpr double kAirIntegral = 0.05;

/// The least share of the rays that meet body and grid with which an X-ray can be compared with a CT.
inline constexpr double kFewestRays = 0.01;

/// The least correlation of an uncalibrated X-ray with the CT's projection with which it is fitted.
inline constexpr double kWeakestCorrelation = 0.5;

}  // namespace x2ct
