// A schedule and a solver, compiled: what the sampling loop runs.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace x2ct {

/// The longest history that a solver may look back on: H1 .. H3, and H0 of the present row.
inline constexpr int kHistory = 4;

/// A linear combination of the registers and one fresh standard normal.
struct Combination {
    double x = 0;
    double y = 0;
    std::array<double, kHistory> h{};
    double noise = 0;

    bool operator==(const Combination&) const = default;
};

/// One evaluation of the network and the step that it allows:
///
///     D  = net(y, sigma)
///     H0 = a y + b D
///     x' = a sum over x, y, H0..H3 and a fresh noise
///     y' = the same with its own coefficients; then H3 <- H2 <- H1 <- H0
///
/// H0 is the data prediction with a = 0 and b = 1, the derivative dx/dsigma with a = 1/sigma and b = -1/sigma.
/// x is the accepted state and y the network's input, both in the unit of x. Where a network wants its input scaled
/// (VP), y is kept scaled by `input_scale` and the coefficients carry its inverse: the loop has nothing to do.
struct Row {
    double sigma = 0;
    double input_scale = 1;
    double a = 0;
    double b = 1;
    Combination x;
    Combination y;
    std::uint32_t draw = 0;  ///< which draw of the counter-based noise this row's fresh noise is

    bool operator==(const Row&) const = default;
};

/// The whole run. It starts at y = x = start_scale n(draw 0) + start_noise n(draw 1) and ends with x of the last row.
class Table {
  public:
    /// Throws InputError if it can't be run: no rows, numbers that aren't finite, a history that isn't there yet.
    Table(std::string solver, std::vector<double> sigmas, double start_scale, double start_noise,
          std::vector<Row> rows);

    const std::string& solver() const { return solver_; }
    const std::vector<double>& sigmas() const { return sigmas_; }
    double start_scale() const { return start_scale_; }
    double start_noise() const { return start_noise_; }
    const std::vector<Row>& rows() const { return rows_; }
    int evaluations() const { return static_cast<int>(rows_.size()); }

    /// Whether x is ever read, so that it needs a register beside y.
    bool uses_x() const { return uses_x_; }
    /// How far back the rows look: 0 none, 1 for H1, ... Each is a register.
    int history() const { return history_; }
    /// The registers to allocate, in order: "x"? "y" "D" "H1".. .
    std::vector<std::string> registers() const;

    /// Row-major [evaluations, columns().size()] copy of the coefficients.
    std::vector<double> matrix() const;
    static const std::vector<std::string>& columns();

    /// The table in words, one line a row, with the terms that aren't 0.
    std::string describe() const;

  private:
    std::string solver_;
    std::vector<double> sigmas_;
    double start_scale_;
    double start_noise_;
    std::vector<Row> rows_;
    bool uses_x_ = false;
    int history_ = 0;
};

}  // namespace x2ct
