// Splitting a range over threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace x2ct {

/// The number of threads that `requested` stands for: itself, or all hardware threads for 0.
inline int thread_count(int requested) {
    return requested > 0 ? requested : std::max(1u, std::thread::hardware_concurrency());
}

/// Calls body(begin, end) on pieces of [0, count), each at least `grain` long and starting at a multiple of `align`.
///
/// `body` must not throw. Threads are started for the call: tens of microseconds, against the milliseconds that a pass
/// over a volume takes, and nothing is left idling beside the network's own threads.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t grain, std::int64_t align, int threads, const Body& body) {
    const std::int64_t pieces =
        std::clamp<std::int64_t>(count / std::max<std::int64_t>(grain, 1), 1, thread_count(threads));
    const std::int64_t units = (count + align - 1) / align;
    const auto edge = [&](std::int64_t piece) { return std::min(count, units * piece / pieces * align); };
    std::vector<std::jthread> others;
    others.reserve(pieces - 1);
    for (std::int64_t piece = 1; piece < pieces; ++piece) {
        const std::int64_t begin = edge(piece), end = edge(piece + 1);
        try {
            others.emplace_back([&body, begin, end] { body(begin, end); });
        } catch (const std::system_error&) {  // no more threads to be had: the work is done here instead
            body(begin, end);
        }
    }
    body(edge(0), edge(1));
}

}  // namespace x2ct

// Hot loops are compiled for several generations of x86-64 and picked at load time. None changes a bit of the result:
// contraction is off, and fma is exactly rounded in hardware and in the C library alike.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(X2CT_SINGLE_VERSION)
#define X2CT_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define X2CT_MULTIVERSION
#endif
#define X2CT_INLINE inline __attribute__((always_inline))
