// Many samples of one study, one after the other: their mean and spread, without keeping them.
#pragma once

#include <cstdint>

namespace x2ct {

/// The voxel-wise mean and standard deviation of volumes that come one by one (Welford 1962, Technometrics 4(3)), in
/// memory of the caller's.
class Ensemble {
  public:
    /// `squares` may be null: then there is a mean only. `threads` 0 takes all; the result does not depend on it.
    Ensemble(float* mean, float* squares, std::int64_t count, int threads = 0)
        : mean_(mean), squares_(squares), count_(count), threads_(threads) {}

    void add(const float* volume);

    /// After the last: `squares` become the samples' standard deviation (divided by n - 1; zeros for one).
    void finish();

    int samples() const { return samples_; }

  private:
    float* mean_;
    float* squares_;
    std::int64_t count_;
    int threads_;
    int samples_ = 0;
};

}  // namespace x2ct
