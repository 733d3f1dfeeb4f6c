// Hot loops are compiled for several generations of x86-64 and picked at load time. None changes a bit of the result:
// contraction is off, and fma is exactly rounded in hardware and in the C library alike.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(X2CT_SINGLE_VERSION)
#define X2CT_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define X2CT_MULTIVERSION
#endif
#define X2CT_INLINE inline __attribute__((always_inline))
