// lanes: the fixed order in which long sums are taken on the CPU, and the scalar functions whose
// bits must not depend on a C library.
//
// sum16 and dot16 keep 16 interleaved chains (element i goes to chain i mod 16, ascending), then
// add them by halving: 16 -> 8 -> 4 -> 2 -> 1. That is one AVX-512 register, or two of AVX2, or a
// plain loop: the same bits on all of them. exp_f32 and its kin are polynomials over fused
// multiply-adds for the same reason: expf of the C library differs between CPUs.
#ifndef JOMED_KERNELS_LANES_H
#define JOMED_KERNELS_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base.h"

#define LANES 16

static inline HOST_DEVICE float lanes_halve(const float lane[LANES]) {
    float half[8], quarter[4];
    for (int i = 0; i < 8; i++) {
        half[i] = lane[i] + lane[i + 8];
    }
    for (int i = 0; i < 4; i++) {
        quarter[i] = half[i] + half[i + 4];
    }
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

// Eight neighbouring chains. Left to itself gcc 12 keeps sixteen as 8 + 4 + 1 + 1 + 1 + 1. Vectors
// go by address: passing them by value would depend on the instruction set.
typedef float Lanes8 __attribute__((vector_size(32)));
static inline void lanes8_add(Lanes8 *sum, const float *x) {
    Lanes8 a;
    memcpy(&a, x, sizeof a);
    *sum += a;
}
static inline void lanes8_fma(Lanes8 *sum, const float *x, const float *y) {
    for (int l = 0; l < 8; l++) {
        (*sum)[l] = fmaf(x[l], y[l], (*sum)[l]);
    }
}

// The chains go on over a further n elements: lane[i mod 16] += x[i]. A row taken in pieces gives
// the same bits as in one, as long as every piece but the last is a multiple of LANES.
static inline void lanes_sum(float lane[LANES], const float *x, int n) {
    Lanes8 low, high;
    memcpy(&low, lane, sizeof low);
    memcpy(&high, lane + 8, sizeof high);
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes8_add(&low, x + i);
        lanes8_add(&high, x + i + 8);
    }
    memcpy(lane, &low, sizeof low);
    memcpy(lane + 8, &high, sizeof high);
    for (int l = 0; i + l < n; l++) {
        lane[l] += x[i + l];
    }
}

// lane[i mod 16] = fmaf(x[i], y[i], lane[i mod 16]), in pieces as lanes_sum.
static inline void lanes_dot(float lane[LANES], const float *x, const float *y, int n) {
    Lanes8 low, high;
    memcpy(&low, lane, sizeof low);
    memcpy(&high, lane + 8, sizeof high);
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes8_fma(&low, x + i, y + i);
        lanes8_fma(&high, x + i + 8, y + i + 8);
    }
    memcpy(lane, &low, sizeof low);
    memcpy(lane + 8, &high, sizeof high);
    for (int l = 0; i + l < n; l++) {
        lane[l] = fmaf(x[i + l], y[i + l], lane[l]);
    }
}

// sum_i x[i], in lane order.
static inline float sum16(const float *x, int n) {
    float lane[LANES] = {0};
    lanes_sum(lane, x, n);
    return lanes_halve(lane);
}

// sum_i x[i] * y[i] with fused multiply-adds, in lane order.
static inline float dot16(const float *x, const float *y, int n) {
    float lane[LANES] = {0};
    lanes_dot(lane, x, y, n);
    return lanes_halve(lane);
}

// e^x. Error below 1.03 ulp for results in the normal range (measured over all of them); 0 below
// about -87.3 (results that would be subnormal are flushed), +inf above 88.72; NaN stays NaN.
//   x = n ln2 + r, |r| <= ln2/2;  e^r by a degree-6 Taylor-like polynomial (Cephes expf).
static inline HOST_DEVICE float exp_f32(float x) {
    const float LOG2E = 1.44269504088896341f, LEAST = -87.33654f, GREATEST = 88.72283f;
    const float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f; // sum is ln 2, high part exact
    // Adding 1.5 2^23 rounds to an integer, which then stands in the lowest bits.
    const float ROUNDER = 12582912.0f, shifted = x * LOG2E + ROUNDER, n = shifted - ROUNDER;
    const float r = fmaf(n, -LN2_LOW, fmaf(n, -LN2_HIGH, x));
    float p = fmaf(1.9875691500e-4f, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(p * r, r, r) + 1.0f;
    // p 2^n by adding n to p's exponent: the product is normal, or a choice below replaces it.
    // One choice per line, so that each becomes one vector instruction.
    uint32_t bits, exponent;
    memcpy(&bits, &p, 4);
    memcpy(&exponent, &shifted, 4);
    bits += exponent << 23;
    float y;
    memcpy(&y, &bits, 4);
    y = x < LEAST ? 0.0f : y;
    y = x > GREATEST ? INFINITY : y;
    return x == x ? y : x;
}

// ln x of an f32 in f64, with a relative error below 1e-15. -inf at 0, NaN below, +inf and NaN
// stay.
//   x = 2^n m, m in [sqrt(1/2), sqrt 2);  ln m = 2 atanh((m - 1) / (m + 1)) by its series.
static inline HOST_DEVICE double log_wide(float x) {
    if (!(x > 0.0f) || x == INFINITY) {
        return x == 0.0f ? -INFINITY : x < 0.0f ? NAN : (double)x;
    }
    const double LN2 = 0.69314718055994530942, ROOT_HALF = 0.70710678118654752440;
    const double wide = (double)x; // also makes subnormals normal
    uint64_t bits;
    memcpy(&bits, &wide, 8);
    int n = (int)(bits >> 52) - 1022;
    bits = (bits & 0xfffffffffffffu) | (uint64_t)1022 << 52;
    double m; // in [1/2, 1)
    memcpy(&m, &bits, 8);
    if (m < ROOT_HALF) {
        m *= 2;
        n--;
    }
    const double s = (m - 1) / (m + 1), z = s * s; // |s| <= 0.1716: the next term is below 1e-16
    double p = 1.0 / 19;
    for (int k = 17; k >= 1; k -= 2) {
        p = p * z + 1.0 / k;
    }
    return n * LN2 + 2 * s * p;
}

// ln x, correctly rounded but for results within 1e-7 ulp of a tie.
static inline HOST_DEVICE float log_f32(float x) { return (float)log_wide(x); }
#endif
