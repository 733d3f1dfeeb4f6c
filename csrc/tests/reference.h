// What the sampling loop has to do, in double precision and one voxel at a time; and networks with a closed form.
#pragma once

#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "x2ct/network.h"
#include "x2ct/table.h"

namespace reference {

/// The denoised value of y at a noise level.
using Denoiser = std::function<double(double y, double sigma)>;

/// Runs the table on one voxel, straight from its definition. `noise` gives the voxel's normal of a draw.
inline double run(const x2ct::Table& table, const Denoiser& denoiser,
                  const std::function<double(std::uint32_t)>& noise) {
    const auto& rows = table.rows();
    double x = table.start_scale() * noise(0);
    if (table.start_noise() != 0) x += table.start_noise() * noise(1);
    double y = rows.front().input_scale * x;
    std::vector<double> h(x2ct::kHistory, 0.0);
    for (const auto& row : rows) {
        for (int k = x2ct::kHistory - 1; k > 0; --k) h[k] = h[k - 1];
        h[0] = row.a * y + row.b * denoiser(y, row.sigma);
        const auto combine = [&](const x2ct::Combination& c) {
            double sum = c.x * x + c.y * y;
            for (int k = 0; k < x2ct::kHistory; ++k) sum += c.h[k] * h[k];
            return c.noise == 0 ? sum : sum + c.noise * noise(row.draw);
        };
        const double new_x = combine(row.x), new_y = combine(row.y);
        x = new_x, y = new_y;
    }
    return x;
}

/// Data from a normal distribution: D = mean + s^2 / (s^2 + sigma^2) (y - mean).
struct Gaussian {
    double mean;
    double deviation;

    double operator()(double y, double sigma) const {
        const double s2 = deviation * deviation;
        return mean + s2 / (s2 + sigma * sigma) * (y - mean);
    }

    /// The probability flow ODE's exact solution from (x, from) to the noise level `to`.
    double flow(double x, double from, double to) const {
        const double s2 = deviation * deviation;
        return mean + std::sqrt((s2 + to * to) / (s2 + from * from)) * (x - mean);
    }
};

/// Data from two normal distributions around -1 and 1: not linear, and still solved exactly, for in one dimension the
/// flow keeps every point's quantile.
struct Mixture {
    double deviation;

    double operator()(double y, double sigma) const {
        const double s2 = deviation * deviation, total = s2 + sigma * sigma;
        return (s2 * y + sigma * sigma * std::tanh(y / total)) / total;
    }

    /// The probability flow ODE's exact solution from (x, from) to the noise level `to`.
    double flow(double x, double from, double to) const {
        const double wanted = above(x, from);
        double low = -50, high = 50;
        while (high - low > 1e-15) {
            const double middle = (low + high) / 2;
            if (middle == low || middle == high) break;
            (above(middle, to) > wanted ? low : high) = middle;
        }
        return (low + high) / 2;
    }

    /// The chance of more than x at a noise level.
    double above(double x, double sigma) const {
        const double spread = std::sqrt(2 * (deviation * deviation + sigma * sigma));
        return (std::erfc((x - 1) / spread) + std::erfc((x + 1) / spread)) / 4;
    }
};

/// A Denoiser as a network of float tensors.
class FunctionNetwork : public x2ct::Network {
  public:
    FunctionNetwork(Denoiser denoiser, const x2ct::Shape& shape)
        : denoiser_(std::move(denoiser)), inputs_{{"x", shape}, {"sigma", {-1}}}, outputs_{{"denoised", shape}} {}

    const std::vector<x2ct::TensorInfo>& inputs() const override { return inputs_; }
    const std::vector<x2ct::TensorInfo>& outputs() const override { return outputs_; }
    std::string device() const override { return "cpu"; }
    std::string precision() const override { return "f32"; }
    std::string runtime_version() const override { return ""; }
    std::unique_ptr<x2ct::Session> session() override { return std::make_unique<Evaluation>(*this); }

  private:
    class Evaluation : public x2ct::Session {
      public:
        explicit Evaluation(const FunctionNetwork& network) : network_(network) {}
        void set_input(const std::string& name, const float* data, const x2ct::Shape&) override {
            (name == "x" ? x_ : sigma_) = data;
        }
        void set_output(const std::string&, float* data, const x2ct::Shape&) override { denoised_ = data; }
        void evaluate() override {
            const auto count = x2ct::volume_of(network_.outputs_[0].shape);
            for (std::int64_t i = 0; i < count; ++i)
                denoised_[i] = static_cast<float>(network_.denoiser_(x_[i], *sigma_));
        }
        x2ct::TensorView output(const std::string&) override { return {denoised_, network_.outputs_[0].shape}; }

      private:
        const FunctionNetwork& network_;
        const float* x_ = nullptr;
        const float* sigma_ = nullptr;
        float* denoised_ = nullptr;
    };

    Denoiser denoiser_;
    std::vector<x2ct::TensorInfo> inputs_;
    std::vector<x2ct::TensorInfo> outputs_;
};

}  // namespace reference
