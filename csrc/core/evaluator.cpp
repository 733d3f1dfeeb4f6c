#include "x2ct/evaluator.h"

#include <algorithm>
#include <map>
#include <vector>

#include "core/contract.h"
#include "core/registers.h"
#include "core/stopwatch.h"
#include "x2ct/error.h"
#include "x2ct/tiles.h"

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

}  // namespace

void check_denoiser(const Network& denoiser, const Device& device, const Shape& shape) {
    if (denoiser.device() != device.name()) {
        throw InputError("sampler: device: found a network on " + denoiser.device() + ", expected one on " +
                         device.name());
    }
    check_tensor(denoiser.inputs(), "inputs", "x", shape);
    check_tensor(denoiser.inputs(), "inputs", "sigma", {shape.front()});
    check_tensor(denoiser.outputs(), "outputs", "denoised", shape);
}

void check_condition(const Network& denoiser, const std::string& name, const Shape& shape) {
    if (name == "x" || name == "sigma") {
        throw InputError("condition: found " + name + ", which the sampler sets itself");
    }
    check_tensor(denoiser.inputs(), "inputs", name, shape);
}

void check_lifted(const Lift::Output& output, const Buffer& values, const Shape& shape) {
    if (static_cast<std::int64_t>(values.count()) != volume_of(shape)) {
        throw InputError("lift: " + output.name + ": found " + std::to_string(values.count()) +
                         " values, expected those of " + to_string(shape) + ": another grid than the sampler's");
    }
}

bool is_condition(const TensorInfo& input) { return input.name != "x" && input.name != "sigma"; }

InputError missing_condition(const TensorInfo& input) {
    return InputError("sampler: condition " + input.name + ": found none, expected " + to_string(input.shape) +
                      "; call set_condition before run");
}

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

namespace {

Shape with_channels(std::int64_t channels, const Index& grid, std::int64_t stride = 1) {
    return {1, channels, grid[0] / stride, grid[1] / stride, grid[2] / stride};
}

Buffer buffer_of(const std::shared_ptr<Device>& device, const Shape& shape) {
    return {device, static_cast<std::size_t>(volume_of(shape))};
}

}  // namespace

struct TiledEvaluator::Condition : Lift::Output {
    Buffer tile;
    Buffer whole;  // empty where a lift makes each tile's
};

TiledEvaluator::TiledEvaluator(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device, Tiling tiling)
    : denoiser_(std::move(denoiser)), device_(std::move(device)), tiling_(tiling) {
    tiling_.check();
    shape_ = with_channels(1, tiling_.grid);
    const Shape tile = with_channels(1, tiling_.tile);
    check_denoiser(*denoiser_, *device_, tile);
    x_ = buffer_of(device_, tile);
    denoised_ = buffer_of(device_, tile);
    levels_ = std::make_unique<Levels>(device_, 1);
}

TiledEvaluator::~TiledEvaluator() = default;

void TiledEvaluator::set_condition(const std::string& name, const float* data, const Shape& shape) {
    const std::int64_t stride = shape.size() == 5 && shape[2] > 0 ? tiling_.grid[0] / shape[2] : 0;
    const std::int64_t channels = shape.size() == 5 ? shape[1] : 0;
    if (stride < 1 || tiling_.stride % stride != 0 || shape != with_channels(channels, tiling_.grid, stride)) {
        throw InputError("condition " + name + ": found shape " + to_string(shape) +
                         ", expected [1, C, X, Y, Z] of a grid of " + to_string(shape_));
    }
    Condition made = condition({name, channels, stride});
    made.whole = buffer_of(device_, shape);
    device_->upload(made.whole.data(), data, made.whole.count());
    lift_.reset();
    std::erase_if(conditions_, [&](const Condition& old) { return old.name == name; });
    conditions_.push_back(std::move(made));
}

void TiledEvaluator::set_lifted(std::vector<Lift::Whole> conditions) {
    std::vector<Condition> made;
    for (auto& [output, values] : conditions) {
        check_lifted(output, values, with_channels(output.channels, tiling_.grid, output.stride));
        made.push_back(condition(output));
        made.back().whole = std::move(values);
    }
    lift_.reset();
    conditions_ = std::move(made);
}

void TiledEvaluator::set_lift(std::shared_ptr<Lift> lift) {
    if (lift->tiling().grid != tiling_.grid) {
        throw InputError("lift: found another grid than the sampler's, expected the same");
    }
    std::vector<Condition> made;
    for (const Lift::Output& output : lift->outputs()) made.push_back(condition(output));
    lift_ = std::move(lift);
    conditions_ = std::move(made);
}

// One with a tile's memory.
TiledEvaluator::Condition TiledEvaluator::condition(const Lift::Output& output) const {
    const Shape tile = with_channels(output.channels, tiling_.tile, output.stride);
    check_condition(*denoiser_, output.name, tile);
    return {output, buffer_of(device_, tile), {}};
}

void TiledEvaluator::prepare(const std::vector<float>& sigmas) {
    for (const auto& input : denoiser_->inputs()) {
        const bool given = std::ranges::find(conditions_, input.name, &Condition::name) != conditions_.end();
        if (is_condition(input) && !given) throw missing_condition(input);
    }
    if (!session_) session_ = denoiser_->session();
    const Shape tile = with_channels(1, tiling_.tile);
    session_->set_input("x", x_.data(), tile);
    levels_->set(sigmas);
    session_->set_input("sigma", levels_->present(), {1});
    session_->set_output("denoised", denoised_.data(), tile);
    for (const auto& condition : conditions_) {
        session_->set_input(condition.name, condition.tile.data(),
                            with_channels(condition.channels, tiling_.tile, condition.stride));
    }
}

// A tile's conditions, cut from the whole or lifted.
void TiledEvaluator::condition_on(const Box& box) {
    if (lift_) lift_->evaluate(box);
    for (std::size_t k = 0; k < conditions_.size(); ++k) {
        Condition& condition = conditions_[k];
        if (lift_) {
            lift_->copy(k, box, condition.tile.data(), box);
            continue;
        }
        const auto cells = [&](const Index& voxels) {
            return Index{voxels[0] / condition.stride, voxels[1] / condition.stride, voxels[2] / condition.stride};
        };
        BoxCopy cut;
        cut.from = condition.whole.data();
        cut.from_grid = cells(tiling_.grid);
        cut.from_origin = cells(box.origin);
        cut.to = condition.tile.data();
        cut.to_grid = cut.extent = cells(box.extent);
        cut.channels = condition.channels;
        device_->copy(cut);
    }
}

std::string TiledEvaluator::key() const {
    if (lift_ || !session_->is_recordable()) return "";  // a lift makes coordinates only where its tile moves
    std::string text = levels_->key() + key_of(x_) + key_of(denoised_);
    for (const auto& condition : conditions_) text += key_of(condition.tile) + key_of(condition.whole);
    return text;
}

void TiledEvaluator::evaluate(int row, const float* y, float* denoised, const Pause& pause, Timings& timings) {
    levels_->choose(row);
    bool first = true;
    for (const auto& [input, output] : tiling_.tiles(row)) {
        if (!first && pause) pause();
        first = false;
        timed(timings.tiles_s, [&] {
            condition_on(input);
            device_->copy({y, tiling_.grid, input.origin, x_.data(), input.extent, {}, input.extent});
        });
        timed(timings.network_s, [&] { session_->evaluate(); });
        timed(timings.tiles_s, [&] {
            Index inside{};
            for (std::size_t axis = 0; axis < 3; ++axis) inside[axis] = output.origin[axis] - input.origin[axis];
            device_->copy(
                {denoised_.data(), input.extent, inside, denoised, tiling_.grid, output.origin, output.extent});
        });
    }
}

}  // namespace x2ct
