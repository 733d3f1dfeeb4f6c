#include "devices/cpu/rays.h"

#include <algorithm>
#include <variant>

#include "core/parallel.h"

namespace x2ct {
namespace {

constexpr std::int64_t kGrain = 1 << 15;  // reads, below which another thread costs more than it saves

template <typename Work>
void run_line(const Work& work, std::int64_t line) {
    const std::int64_t first = line * work.line(), last = std::min(work.count(), first + work.line());
    for (std::int64_t at = first; at < last; at += kernels::kStrip) {
        work.template run<kernels::kStrip>(at, std::min<std::int64_t>(last, at + kernels::kStrip));
    }
}

}  // namespace

void run_rays(const RayKernel& kernel, int threads) {
    std::visit(
        [threads](const auto& work) {
            const std::int64_t lines = (work.count() + work.line() - 1) / work.line();
            parallel_for(lines, std::max<std::int64_t>(1, kGrain / (work.line() * work.cost())), 1, threads,
                         [&](std::int64_t begin, std::int64_t end) {
                             for (std::int64_t line = begin; line < end; ++line) run_line(work, line);
                         });
        },
        kernel.work);
}

}  // namespace x2ct
