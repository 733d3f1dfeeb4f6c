#include <algorithm>
#include <map>
#include <vector>

#include "core/stopwatch.h"
#include "x2ct/error.h"
#include "x2ct/evaluator.h"

namespace x2ct {
namespace {

const TensorInfo* find(const std::vector<TensorInfo>& tensors, const std::string& name) {
    const auto found = std::ranges::find(tensors, name, &TensorInfo::name);
    return found == tensors.end() ? nullptr : &*found;
}

std::string names(const std::vector<TensorInfo>& tensors) {
    std::string text;
    for (const auto& tensor : tensors) text += (text.empty() ? "" : ", ") + tensor.name;
    return text;
}

// Whether a tensor of `shape` can go where `declared` is asked for; -1 is any size.
bool fits(const Shape& shape, const Shape& declared) {
    return std::ranges::equal(shape, declared, [](std::int64_t a, std::int64_t b) { return b < 0 || a == b; });
}

void check_tensor(const std::vector<TensorInfo>& tensors, const char* kind, const std::string& name,
                  const Shape& shape) {
    const TensorInfo* tensor = find(tensors, name);
    if (tensor == nullptr) {
        throw InputError(std::string("denoiser: ") + kind + ": found " + names(tensors) + ", expected one named " +
                         name);
    }
    if (!fits(shape, tensor->shape)) {
        throw InputError("denoiser: " + name + ": found shape " + to_string(shape) + ", expected " +
                         to_string(tensor->shape));
    }
}

class WholeEvaluator : public Evaluator {
  public:
    WholeEvaluator(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device, Shape shape)
        : denoiser_(std::move(denoiser)), device_(std::move(device)), shape_(std::move(shape)) {
        if (shape_.empty() || std::ranges::any_of(shape_, [](std::int64_t axis) { return axis < 1; })) {
            throw InputError("sampler: shape: found " + to_string(shape_) + ", expected sizes of at least 1");
        }
        if (denoiser_->device() != device_->name()) {
            throw InputError("sampler: device: found a network on " + denoiser_->device() + ", expected one on " +
                             device_->name());
        }
        check_tensor(denoiser_->inputs(), "inputs", "x", shape_);
        check_tensor(denoiser_->inputs(), "inputs", "sigma", {shape_.front()});
        check_tensor(denoiser_->outputs(), "outputs", "denoised", shape_);
        sigma_ = Buffer(device_, static_cast<std::size_t>(shape_.front()));
    }

    const Shape& shape() const override { return shape_; }

    void set_condition(const std::string& name, const float* data, const Shape& shape) override {
        if (name == "x" || name == "sigma")
            throw InputError("condition: found " + name + ", which the sampler sets itself");
        check_tensor(denoiser_->inputs(), "inputs", name, shape);
        const auto count = static_cast<std::size_t>(volume_of(shape));
        Condition& condition = conditions_[name];
        if (condition.buffer.count() != count) condition.buffer = Buffer(device_, count);
        condition.shape = shape;
        device_->upload(condition.buffer.data(), data, count);
    }

    void prepare() override {
        for (const auto& input : denoiser_->inputs()) {
            if (input.name != "x" && input.name != "sigma" && !conditions_.contains(input.name)) {
                throw InputError("sampler: condition " + input.name + ": found none, expected " +
                                 to_string(input.shape) + "; call set_condition before run");
            }
        }
        if (!session_) session_ = denoiser_->session();
        for (const auto& [name, condition] : conditions_)
            session_->set_input(name, condition.buffer.data(), condition.shape);
        session_->set_input("sigma", sigma_.data(), {shape_.front()});
    }

    void evaluate(int, double sigma, const float* y, float* denoised, Timings& timings) override {
        const std::vector<float> sigmas(sigma_.count(), static_cast<float>(sigma));
        device_->upload(sigma_.data(), sigmas.data(), sigmas.size());
        session_->set_input("x", y, shape_);
        session_->set_output("denoised", denoised, shape_);
        timed(timings.network_s, [&] { session_->evaluate(); });
    }

  private:
    struct Condition {
        Shape shape;
        Buffer buffer;
    };
    std::shared_ptr<Network> denoiser_;
    std::shared_ptr<Device> device_;
    Shape shape_;
    Buffer sigma_;
    std::map<std::string, Condition> conditions_;
    std::unique_ptr<Session> session_;
};

}  // namespace

std::unique_ptr<Evaluator> whole_evaluator(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device,
                                           Shape shape) {
    return std::make_unique<WholeEvaluator>(std::move(denoiser), std::move(device), std::move(shape));
}

}  // namespace x2ct
