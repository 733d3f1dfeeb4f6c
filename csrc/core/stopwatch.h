// Where the time goes.
#pragma once

#include <chrono>

namespace x2ct {

class Stopwatch {
  public:
    double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point start_ = Clock::now();
};

/// Does the work and adds the seconds that it took.
template <typename Work>
void timed(double& seconds, const Work& work) {
    const Stopwatch watch;
    work();
    seconds += watch.seconds();
}

}  // namespace x2ct
