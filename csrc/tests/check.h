// tests/ holds one program a file, run by ctest: laws of the core that need no Python.
//
// A test is a function; CHECK counts what failed and says where; TESTS(...) runs them and makes the exit status.
#pragma once

#include <cmath>
#include <cstdio>
#include <exception>
#include <initializer_list>

namespace check {

inline int failures = 0;

inline void report(bool good, const char* file, int line, const char* text) {
    if (good) return;
    ++failures;
    std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
}

inline void report_close(double found, double wanted, double tolerance, const char* file, int line, const char* text) {
    if (std::abs(found - wanted) <= tolerance) return;
    ++failures;
    std::fprintf(stderr, "%s:%d: failed: %s: found %.17g, wanted %.17g within %g\n", file, line, text, found, wanted,
                 tolerance);
}

inline int run(std::initializer_list<void (*)()> tests) {
    for (auto test : tests) {
        try {
            test();
        } catch (const std::exception& error) {
            ++failures;
            std::fprintf(stderr, "a test threw: %s\n", error.what());
        }
    }
    return failures == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK(condition) ::check::report(static_cast<bool>(condition), __FILE__, __LINE__, #condition)
#define CHECK_CLOSE(found, wanted, tolerance) \
    ::check::report_close((found), (wanted), (tolerance), __FILE__, __LINE__, #found)
#define CHECK_THROWS(type, expression)                                             \
    do {                                                                           \
        bool thrown = false;                                                       \
        try {                                                                      \
            (void)(expression);                                                    \
        } catch (const type&) {                                                    \
            thrown = true;                                                         \
        }                                                                          \
        ::check::report(thrown, __FILE__, __LINE__, #expression " throws " #type); \
    } while (false)
#define TESTS(...) \
    int main() { return ::check::run({__VA_ARGS__}); }
