#include <algorithm>
#include <map>
#include <vector>

#include "core/contract.h"
#include "core/levels.h"
#include "core/stopwatch.h"
#include "x2ct/error.h"
#include "x2ct/evaluator.h"

namespace x2ct {
namespace {

class WholeEvaluator : public Evaluator {
  public:
    WholeEvaluator(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device, Shape shape)
        : denoiser_(std::move(denoiser)), device_(std::move(device)), shape_(std::move(shape)) {
        if (shape_.empty() || std::ranges::any_of(shape_, [](std::int64_t axis) { return axis < 1; })) {
            throw InputError("sampler: shape: found " + to_string(shape_) + ", expected sizes of at least 1");
        }
        check_denoiser(*denoiser_, *device_, shape_);
        levels_ = std::make_unique<Levels>(device_, shape_.front());
    }

    const Shape& shape() const override { return shape_; }

    void set_condition(const std::string& name, const float* data, const Shape& shape) override {
        check_condition(*denoiser_, name, shape);
        const auto count = static_cast<std::size_t>(volume_of(shape));
        Condition& condition = conditions_[name];
        if (condition.buffer.count() != count) condition.buffer = Buffer(device_, count);
        condition.shape = shape;
        device_->upload(condition.buffer.data(), data, count);
    }

    void set_lifted(std::vector<Lift::Whole> conditions) override {
        if (shape_.size() != 5)
            throw InputError("lift: found a sampler of " + to_string(shape_) + ", expected volumes");
        std::map<std::string, Condition> made;
        for (auto& [output, values] : conditions) {
            const auto& [name, channels, stride] = output;
            const Shape shape = {1, channels, shape_[2] / stride, shape_[3] / stride, shape_[4] / stride};
            check_lifted(output, values, shape);
            check_condition(*denoiser_, name, shape);
            made[name] = {shape, std::move(values)};
        }
        conditions_ = std::move(made);
    }

    void prepare(const std::vector<float>& sigmas) override {
        for (const auto& input : denoiser_->inputs()) {
            if (is_condition(input) && !conditions_.contains(input.name)) throw missing_condition(input);
        }
        if (!session_) session_ = denoiser_->session();
        for (const auto& [name, condition] : conditions_)
            session_->set_input(name, condition.buffer.data(), condition.shape);
        levels_->set(sigmas);
        session_->set_input("sigma", levels_->present(), {levels_->samples()});
    }

    void evaluate(int row, const float* y, float* denoised, const Pause&, Timings& timings) override {
        levels_->choose(row);
        session_->set_input("x", y, shape_);
        session_->set_output("denoised", denoised, shape_);
        timed(timings.network_s, [&] { session_->evaluate(); });
    }

    std::string key() const override {
        if (!session_->is_recordable()) return "";
        std::string text = levels_->key();
        for (const auto& [name, condition] : conditions_) text += key_of(condition.buffer);
        return text;
    }

  private:
    struct Condition {
        Shape shape;
        Buffer buffer;
    };
    std::shared_ptr<Network> denoiser_;
    std::shared_ptr<Device> device_;
    Shape shape_;
    std::unique_ptr<Levels> levels_;
    std::map<std::string, Condition> conditions_;
    std::unique_ptr<Session> session_;
};

}  // namespace

std::unique_ptr<Evaluator> whole_evaluator(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device,
                                           Shape shape) {
    return std::make_unique<WholeEvaluator>(std::move(denoiser), std::move(device), std::move(shape));
}

}  // namespace x2ct
