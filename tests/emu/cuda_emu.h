// cuda_emu: what a .cu file sees instead of the CUDA headers when g++ compiles it for the emulator
// (put in front of every file by -include).
//
// The kernel's source becomes C++: __global__ and __device__ mean nothing, threadIdx is a call,
// LAUNCH runs the grid at once on fibers, one block after the other. What the parts do stands in
// emu_runtime.h (host side), emu_device.h (device side) and emu_ptx.h (ptx.cuh's wrappers).
// Left out: what kernels may not use (kernels/cuda_common.cuh); __shared__ is an error by design.
#ifndef JOMED_TESTS_EMU_CUDA_EMU_H
#define JOMED_TESTS_EMU_CUDA_EMU_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

using std::isfinite;
using std::isinf;
using std::isnan;

// ---- qualifiers ----
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static_assert(false, "use SMEM_STATIC or SMEM_TAKE");

// ---- where a call stands, for reports ----
struct Place {
    const char *file;
    int line;
    static constexpr Place here(const char *at = __builtin_FILE(), int number = __builtin_LINE()) {
        return {at, number};
    }
};
#define PLACE Place place = Place::here() // last parameter of what reports its caller

// ---- vector types ----
#define VECTOR(T, name)                                                                            \
    struct alignas(2 * sizeof(T)) name##2 {                                                        \
        T x, y;                                                                                    \
    };                                                                                             \
    struct name##3 {                                                                               \
        T x, y, z;                                                                                 \
    };                                                                                             \
    struct alignas(4 * sizeof(T)) name##4 {                                                        \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                              \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                      \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTOR(float, float)
VECTOR(int, int)
VECTOR(unsigned, uint)
VECTOR(unsigned char, uchar)
VECTOR(unsigned short, ushort)
#undef VECTOR
struct alignas(16) double2 {
    double x, y;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#include "emu_runtime.h"

#include "emu_device.h"
#include "emu_hopper.h"
#include "emu_ptx.h"
#endif
