// emu_math: the CUDA maths that is not in the C library. The fast forms (__expf and its kin) are
// the exact ones here: on a GPU they differ in the last bits.
#ifndef JOMED_TESTS_EMU_EMU_MATH_H
#define JOMED_TESTS_EMU_EMU_MATH_H

namespace emu {
template <typename To, typename From> static inline To bits_as(From x) {
    static_assert(sizeof(To) == sizeof(From));
    return __builtin_bit_cast(To, x);
}
} // namespace emu

// ---- bits ----
static inline float __uint_as_float(unsigned x) { return emu::bits_as<float>(x); }
static inline float __int_as_float(int x) { return emu::bits_as<float>(x); }
static inline unsigned __float_as_uint(float x) { return emu::bits_as<unsigned>(x); }
static inline int __float_as_int(float x) { return emu::bits_as<int>(x); }
static inline double __longlong_as_double(long long x) { return emu::bits_as<double>(x); }
static inline long long __double_as_longlong(double x) { return emu::bits_as<long long>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) {
        y = y << 1 | (x >> i & 1);
    }
    return y;
}

// ---- choices ----
#define CHOICE(T)                                                                                  \
    static inline T min(T a, T b) { return b < a ? b : a; }                                        \
    static inline T max(T a, T b) { return a < b ? b : a; }
CHOICE(int)
CHOICE(unsigned)
CHOICE(long long)
CHOICE(unsigned long long)
CHOICE(unsigned long)
CHOICE(long)
#undef CHOICE
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

// ---- arithmetic with one rounding ----
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __double2float_rn(double x) { return (float)x; }

// ---- functions ----
// Macros, because the C library has these names for its own vector forms.
#define __expf expf
#define __logf logf
#define __powf powf
#define __sinf sinf
#define __cosf cosf
static inline float rsqrtf(float x) { return (float)(1 / sqrt((double)x)); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float sinpif(float x) { return (float)sin(3.14159265358979323846 * x); }
static inline float cospif(float x) { return (float)cos(3.14159265358979323846 * x); }

template <typename T> static inline T __ldg(const T *at) { return *at; }
#endif
