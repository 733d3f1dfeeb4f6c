// kernels/ holds the arithmetic that devices share, one voxel, ray or slice at a time: inline functions that the host's
// compiler and nvcc both compile. IEEE 754 rounds + - * / sqrt and fma exactly, and contraction is off in both, so that
// devices can't differ by a bit. Nothing here allocates, throws or knows a device.
#pragma once

#if defined(__CUDACC__)
#define X2CT_BOTH __host__ __device__ __forceinline__
#else
#define X2CT_BOTH inline __attribute__((always_inline))
#endif
