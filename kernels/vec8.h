// vec8: eight floats as one value, for the inner loops that a compiler does not keep in registers by
// itself. AVX2 where the build allows it, otherwise whatever the compiler makes of GCC's vectors; the
// bits are the same, because every operation is one correctly rounded IEEE operation per element.
#ifndef JOMED_KERNELS_VEC8_H
#define JOMED_KERNELS_VEC8_H

#include <math.h>
#include <string.h>
#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif

#define VEC 8
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" // everything here is inlined, so there is no ABI to change
#endif

typedef float vec8 __attribute__((vector_size(32)));

static inline vec8 vec8_load(const float *x) {
    vec8 v;
    memcpy(&v, x, sizeof v); // no alignment is asked for
    return v;
}

static inline void vec8_store(float *x, vec8 v) { memcpy(x, &v, sizeof v); }

static inline vec8 vec8_all(float x) { return (vec8){x, x, x, x, x, x, x, x}; }

// a * b + c with one rounding.
static inline vec8 vec8_fma(vec8 a, vec8 b, vec8 c) {
#if defined(__AVX2__) && defined(__FMA__)
    return (vec8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    vec8 r;
    for (int i = 0; i < VEC; i++) {
        r[i] = fmaf(a[i], b[i], c[i]);
    }
    return r;
#endif
}

// a > b ? a : b, so a NaN in a is passed over.
static inline vec8 vec8_max(vec8 a, vec8 b) {
#if defined(__AVX2__) && defined(__FMA__)
    return (vec8)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vec8 r;
    for (int i = 0; i < VEC; i++) {
        r[i] = a[i] > b[i] ? a[i] : b[i];
    }
    return r;
#endif
}

#endif
