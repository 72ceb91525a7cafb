// matmul_kernel: tile kernels for AVX-512, AVX2 and plain C; see matmul_kernel.h, matmul_tile.h.
//
//   set      tile    registers: sums, b, a
//   avx512   14x32   28 + 2 + 1 of 32
//   avx2      6x16   12 + 2 + 1 of 16
//   plain     6x16   whatever the compiler makes of it; on CPUs with neither of the above
//
// Not verified: the avx512 set has not run on a CPU with AVX-512. Its text and its tile have passed
// the tests with pairs of 256-bit vectors in the place of its 512-bit ones, and the compiled loop
// keeps all its sums in registers.
#include "matmul_kernel.h"

#include <math.h>

// Before a loop of constant length whose arrays must become registers. Clang takes gcc's pragma for
// a hint and leaves the arrays in memory, at a fifth of the speed.
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define GLUE_(a, b) a##_##b
#define GLUE(a, b) GLUE_(a, b)

// ---- plain C ----
// Eight lanes as a struct, so that the tile's text needs nothing of the compiler. Where the CPU has
// no fused multiply-add, fmaf computes it exactly and slowly.
typedef struct {
    float lane[8];
} Vec8;

static inline Vec8 vec8_load(const float *x) {
    Vec8 v;
    for (int i = 0; i < 8; i++) {
        v.lane[i] = x[i];
    }
    return v;
}

static inline void vec8_store(float *x, Vec8 v) {
    for (int i = 0; i < 8; i++) {
        x[i] = v.lane[i];
    }
}

static inline Vec8 vec8_broadcast(const float *x) {
    return (Vec8){{*x, *x, *x, *x, *x, *x, *x, *x}};
}

static inline Vec8 vec8_fma(Vec8 a, Vec8 b, Vec8 c) {
    for (int i = 0; i < 8; i++) {
        c.lane[i] = fmaf(a.lane[i], b.lane[i], c.lane[i]);
    }
    return c;
}

#define TILE(x) GLUE(x, plain)
#define TARGET
#define ROWS 6
#define WIDTH 8
#define VEC Vec8
#define LOAD vec8_load
#define STORE vec8_store
#define BROADCAST vec8_broadcast
#define FMA vec8_fma
#include "matmul_tile.h"
#undef TARGET

static void panel_plain(float *out, const float *b, size_t b_row, int depth) {
    for (int l = 0; l < depth; l++) {
        for (int j = 0; j < 16; j++) {
            out[l * 16 + j] = b[j * b_row + l];
        }
    }
}

static const MatmulKernel plain = {"plain", 6, 16, tile_plain, panel_plain, slab_plain};

#if defined(__x86_64__)
#include <immintrin.h>

// ---- AVX2 ----
#define TILE(x) GLUE(x, avx2)
#define TARGET __attribute__((target("avx2,fma")))
#define ROWS 6
#define WIDTH 8
#define VEC __m256
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define BROADCAST _mm256_broadcast_ss
#define FMA _mm256_fmadd_ps
#include "matmul_tile.h"

// out[l*columns + j] = b[j*b_row + l] for 8 x 8 elements, in registers: swap single elements
// between rows 1 apart, pairs between rows 2 apart, halves between rows 4 apart.
static inline TARGET __attribute__((always_inline)) void transpose8(float *out, size_t columns,
                                                                    const float *b, size_t b_row) {
    __m256 r[8], s[8];
    UNROLL for (int j = 0; j < 8; j++) {
        r[j] = _mm256_loadu_ps(b + j * b_row);
    }
    UNROLL for (int j = 0; j < 8; j += 2) {
        s[j] = _mm256_unpacklo_ps(r[j], r[j + 1]);
        s[j + 1] = _mm256_unpackhi_ps(r[j], r[j + 1]);
    }
    UNROLL for (int j = 0; j < 8; j += 4) {
        r[j] = _mm256_shuffle_ps(s[j], s[j + 2], _MM_SHUFFLE(1, 0, 1, 0));
        r[j + 1] = _mm256_shuffle_ps(s[j], s[j + 2], _MM_SHUFFLE(3, 2, 3, 2));
        r[j + 2] = _mm256_shuffle_ps(s[j + 1], s[j + 3], _MM_SHUFFLE(1, 0, 1, 0));
        r[j + 3] = _mm256_shuffle_ps(s[j + 1], s[j + 3], _MM_SHUFFLE(3, 2, 3, 2));
    }
    UNROLL for (int l = 0; l < 4; l++) {
        _mm256_storeu_ps(out + l * columns, _mm256_permute2f128_ps(r[l], r[l + 4], 0x20));
        _mm256_storeu_ps(out + (l + 4) * columns, _mm256_permute2f128_ps(r[l], r[l + 4], 0x31));
    }
}

static inline TARGET __attribute__((always_inline)) void
panel_x86(const int columns, float *out, const float *b, size_t b_row, int depth) {
    int l = 0;
    for (; l + 8 <= depth; l += 8) {
        for (int j = 0; j < columns; j += 8) {
            transpose8(out + l * columns + j, columns, b + j * b_row + l, b_row);
        }
    }
    for (; l < depth; l++) {
        for (int j = 0; j < columns; j++) {
            out[l * columns + j] = b[j * b_row + l];
        }
    }
}

static TARGET void panel_avx2(float *out, const float *b, size_t b_row, int depth) {
    panel_x86(16, out, b, b_row, depth);
}

static TARGET void panel_avx512(float *out, const float *b, size_t b_row, int depth) {
    panel_x86(32, out, b, b_row, depth);
}
#undef TARGET

// ---- AVX-512 ----
// Compiled always, called only where the CPU has it.
#define TILE(x) GLUE(x, avx512)
#define TARGET __attribute__((target("avx512f")))
#define ROWS 14
#define WIDTH 16
#define VEC __m512
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define BROADCAST(x) _mm512_set1_ps(*(x))
#define FMA _mm512_fmadd_ps
#include "matmul_tile.h"

static const MatmulKernel avx2 = {"avx2", 6, 16, tile_avx2, panel_avx2, slab_avx2};
static const MatmulKernel avx512 = {"avx512", 14, 32, tile_avx512, panel_avx512, slab_avx512};
#endif

// ---- choice ----
const MatmulKernel *const *matmul_kernels(void) {
#if defined(__x86_64__)
    static const MatmulKernel *const all[] = {&avx512, &avx2, &plain, NULL};
    // Feature bits of the CPU and of the operating system (XGETBV), never model numbers.
    if (__builtin_cpu_supports("avx512f")) {
        return all;
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? all + 1 : all + 2;
#else
    static const MatmulKernel *const all[] = {&plain, NULL};
    return all;
#endif
}
