// The evaluator that goes tile by tile.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "x2ct/device.h"
#include "x2ct/evaluator.h"
#include "x2ct/network.h"
#include "x2ct/tiling.h"

namespace x2ct {

class Levels;

/// A denoiser compiled for `tiling.tile` ([1, 1, X, Y, Z]), evaluated tile by tile; D of the whole grid is put
/// together. Conditions are whole volumes on the denoiser's strides, which are cut; or come from a lift.
class TiledEvaluator : public Evaluator {
  public:
    TiledEvaluator(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device, Tiling tiling);
    ~TiledEvaluator() override;

    const Shape& shape() const override { return shape_; }
    void set_condition(const std::string& name, const float* data, const Shape& shape) override;
    void set_lifted(std::vector<Lift::Whole> conditions) override;
    void set_lift(std::shared_ptr<Lift> lift) override;
    void prepare(const std::vector<float>& sigmas) override;
    void evaluate(int row, const float* y, float* denoised, const Pause& pause, Timings& timings) override;
    std::string key() const override;

  private:
    struct Condition;

    Condition condition(const Lift::Output& output) const;
    void condition_on(const Box& box);

    std::shared_ptr<Network> denoiser_;
    std::shared_ptr<Device> device_;
    Tiling tiling_;
    Shape shape_;
    Buffer x_, denoised_;
    std::unique_ptr<Levels> levels_;
    std::vector<Condition> conditions_;
    std::shared_ptr<Lift> lift_;
    std::unique_ptr<Session> session_;
};

}  // namespace x2ct
