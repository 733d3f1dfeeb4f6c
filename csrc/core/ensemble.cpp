#include "x2ct/ensemble.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"

namespace x2ct {
namespace {

constexpr std::int64_t kGrain = 1 << 15;

}  // namespace

void Ensemble::add(const float* volume) {
    ++samples_;
    const auto number = static_cast<float>(samples_);
    parallel_for(count_, kGrain, 1, threads_, [&](std::int64_t begin, std::int64_t end) {
        if (samples_ == 1) {
            std::copy(volume + begin, volume + end, mean_ + begin);
            if (squares_ != nullptr) std::fill(squares_ + begin, squares_ + end, 0.0F);
            return;
        }
        for (std::int64_t i = begin; i < end; ++i) {
            const float off = volume[i] - mean_[i];
            mean_[i] += off / number;
            if (squares_ != nullptr) squares_[i] += off * (volume[i] - mean_[i]);
        }
    });
}

void Ensemble::finish() {
    if (squares_ == nullptr) return;
    const auto number = static_cast<float>(std::max(1, samples_ - 1));
    parallel_for(count_, kGrain, 1, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) squares_[i] = std::sqrt(squares_[i] / number);
    });
}

}  // namespace x2ct
