#include <algorithm>
#include <vector>

#include "core/contract.h"
#include "core/levels.h"
#include "core/stopwatch.h"
#include "x2ct/tiles.h"

namespace x2ct {
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
