// activation_parts: the activations of one element, one text for the CPU and for f32 on CUDA.
// Private to activation*.* and to the epilogues of matmul.*.
//
// Every activation is x G(x) with a gate G between 0 and 1: the normal distribution function for
// gelu, the logistic function of some v(x) for the others. The slope is G + x G', and one
// exponential gives both. For x < 0 the gate is small and must be exact relatively, not absolutely:
// exp(v) multiplies the rounding error of v by |v|, so v is kept in two floats, v + v_low.
//
// The functions do not branch, so that loops over them become vector code.
#ifndef JOMED_KERNELS_ACTIVATION_PARTS_H
#define JOMED_KERNELS_ACTIVATION_PARTS_H

#include "activation.h"
#include "lanes.h"

typedef struct {
    float value; // x G(x)
    float slope; // G(x) + x G'(x)
} Act;

// x between -limit and limit, where the gate is 0 or 1 in f32. NaN stays NaN.
static inline HOST_DEVICE float act_cut(float x, float limit) {
    const float below = x > limit ? limit : x;
    return below < -limit ? -limit : below;
}

// G = 1 / (1 + exp(-v - v_low)); z is x after the cut, dv is v'(z).
static inline HOST_DEVICE Act act_logistic(float x, float z, float v, float v_low, float dv) {
    const float away = -fabsf(v), away_low = v < 0 ? v_low : -v_low;
    const float e0 = exp_f32(away), e = fmaf(e0, away_low, e0);
    const float near_one = 1.0f / (1.0f + e), near_zero = e * near_one;
    const float gate = v < 0 ? near_zero : near_one;
    const Act act = {x * gate, fmaf(z * dv * near_zero, near_one, gate)};
    return act;
}

static inline HOST_DEVICE Act act_silu(float x) {
    const float z = act_cut(x, 100.0f);
    return act_logistic(x, z, z, 0.0f, 1.0f);
}

static inline HOST_DEVICE Act act_quick_gelu(float x) {
    const float K = 1.702f, K_LOW = (float)(1.702 - (double)1.702f);
    const float z = act_cut(x, 60.0f), v = K * z;
    return act_logistic(x, z, v, fmaf(K, z, -v) + K_LOW * z, K);
}

// v = z (K1 + K3 z^2), twice the argument of the tanh, because (1 + tanh(u)) / 2 = logistic(2u).
static inline HOST_DEVICE Act act_gelu_tanh(float x) {
    const double EXACT1 = 1.5957691216057308; // 2 sqrt(2/pi)
    const double EXACT3 = 0.044715 * EXACT1;
    const float K1 = (float)EXACT1, K1_LOW = (float)(EXACT1 - (double)(float)EXACT1);
    const float K3 = (float)EXACT3, K3_LOW = (float)(EXACT3 - (double)(float)EXACT3);
    const float z = act_cut(x, 12.0f);
    const float square = z * z, square_low = fmaf(z, z, -square);
    const float cube = K3 * square, cube_low = fmaf(K3, square, -cube);
    const float sum = K1 + cube, back = sum - K1; // Knuth's two-sum: sum + sum_low = K1 + cube
    const float sum_low = (K1 - (sum - back)) + (cube - back);
    const float low = sum_low + cube_low + fmaf(K3, square_low, fmaf(K3_LOW, square, K1_LOW));
    const float v = z * sum, v_low = fmaf(z, sum, -v) + z * low;
    return act_logistic(x, z, v, v_low, fmaf(3.0f, cube, K1));
}

// Q(a) = exp(a^2/2) Phi(-a) from t = 1 / (1 + 3a/8), a >= 0.
//   Q(a) = t P(t - 1/2): P is the polynomial of degree 9 that fits Q(a) / t on [0, 13.4] with the
//   least largest relative error, 1.0e-8.
static inline HOST_DEVICE float act_tail(float t) {
    const float s = t - 0.5f;
    float p = 2.16952581e-2f;
    p = fmaf(p, s, -4.05525081e-2f);
    p = fmaf(p, s, -3.17157945e-3f);
    p = fmaf(p, s, 6.44850945e-2f);
    p = fmaf(p, s, -1.95018724e-2f);
    p = fmaf(p, s, -1.02599889e-1f);
    p = fmaf(p, s, 2.19361652e-2f);
    p = fmaf(p, s, 2.48707101e-1f);
    p = fmaf(p, s, 3.46108168e-1f);
    p = fmaf(p, s, 2.68182278e-1f);
    return p * t;
}

// G = Phi(x): exp(-x^2/2) Q(-x) for x < 0, and 1 - exp(-x^2/2) Q(x) otherwise.
static inline HOST_DEVICE Act act_gelu(float x) {
    const float INV_SQRT_2PI = 0.398942280401432678f;
    const float z = act_cut(x, 14.0f), a = fabsf(z);
    const float square = z * z, square_low = fmaf(z, z, -square);
    const float e0 = exp_f32(-0.5f * square), e = fmaf(e0, -0.5f * square_low, e0);
    const float q = act_tail(1.0f / fmaf(0.375f, a, 1.0f)), tail = q * e;
    const float gate = z < 0 ? tail : 1.0f - tail;
    // Far out the tail is subnormal although x times it is not: multiply by x first.
    const Act act = {z < 0 ? x * q * e : x * gate, fmaf(z * INV_SQRT_2PI, e, gate)};
    return act;
}

static inline HOST_DEVICE Act act_of(float x, Activation act) {
    switch (act) {
    case ACT_GELU: return act_gelu(x);
    case ACT_GELU_TANH: return act_gelu_tanh(x);
    case ACT_QUICK_GELU: return act_quick_gelu(x);
    default: return act_silu(x);
    }
}

#ifndef __cplusplus
// value[i] = act(x[i]), slope[i] = act'(x[i]), i < n; value may be x. In activation.c, as vectors.
void act_chunk(float *value, float *slope, const float *x, int n, Activation act);
#endif
#endif
