// activation_parts: the activations of a few elements of one tensor on CUDA. Only for *.cu.
//
// f32 has the functions of the CPU (activation_parts.h), operation by operation, so that both
// give the same bits: some 65 instructions an element, with branches around the division. As many
// in the epilogue of a product take longer than the product: 128 sums of a thread, two warps to a
// scheduler, are 17,000 cycles at best, and a tile of 128 x 256 over 768 l takes 6,100 of the
// tensor cores. What is rounded to 16 bits has the hardware's 2^x and 1/x instead, in 10 (silu)
// to 27 (gelu) instructions without branches. No rounding error is carried along: e^v has |v|
// times the 2^-24 of each rounding on the way to v, and |v| < 89 where the gate is not 0, which
// makes 2^-15 (activation.h).
#ifndef JOMED_KERNELS_ACTIVATION_PARTS_CUH
#define JOMED_KERNELS_ACTIVATION_PARTS_CUH

#include "activation_parts.h"
#include "cuda_common.cuh"

// G = 1 / (1 + exp(-v)), 0 where exp(-v) is beyond f32; z is x after the cut, dv is v'(z).
static __device__ inline Act act16_logistic(float x, float z, float v, float dv) {
    const float MINUS_LOG2E = -1.44269504088896341f;
    const float gate = rcp_approx(1.0f + exp2_approx(MINUS_LOG2E * v));
    return {x * gate, fmaf(z * dv * gate, 1.0f - gate, gate)};
}

static __device__ inline Act act16_gelu_tanh(float x) {
    const float K1 = 1.5957691216057308f, K3 = 0.044715f * K1; // as in act_gelu_tanh
    const float z = act_cut(x, 12.0f), square = z * z;
    return act16_logistic(x, z, z * fmaf(K3, square, K1), fmaf(3.0f * K3, square, K1));
}

static __device__ inline Act act16_gelu(float x) {
    const float INV_SQRT_2PI = 0.398942280401432678f, MINUS_HALF_LOG2E = -0.72134752044448170f;
    const float z = act_cut(x, 14.0f), e = exp2_approx(MINUS_HALF_LOG2E * (z * z));
    const float tail = act_tail(rcp_approx(fmaf(0.375f, fabsf(z), 1.0f))) * e;
    const float gate = z < 0 ? tail : 1.0f - tail;
    return {x * gate, fmaf(z * INV_SQRT_2PI, e, gate)};
}

// By the type T that the results are rounded to; A is known to the compiler.
template <typename T, Activation A> static __device__ inline Act act_as(float x) {
    if constexpr (sizeof(T) == sizeof(float)) {
        return act_of(x, A);
    } else if constexpr (A == ACT_GELU) {
        return act16_gelu(x);
    } else if constexpr (A == ACT_GELU_TANH) {
        return act16_gelu_tanh(x);
    } else if constexpr (A == ACT_QUICK_GELU) {
        const float K = 1.702f, z = act_cut(x, 60.0f);
        return act16_logistic(x, z, K * z, K);
    } else {
        const float z = act_cut(x, 100.0f);
        return act16_logistic(x, z, z, 1.0f);
    }
}

// Runs a statement with A the activation as a constant: FOR_ACT(act, A, f<A>(...)); around loops
// over elements, whose chains then run side by side.
#define FOR_ACT(act, A, ...)                                                                       \
    do {                                                                                           \
        if ((act) == ACT_GELU) {                                                                   \
            constexpr Activation A = ACT_GELU;                                                     \
            __VA_ARGS__;                                                                           \
        } else if ((act) == ACT_GELU_TANH) {                                                       \
            constexpr Activation A = ACT_GELU_TANH;                                                \
            __VA_ARGS__;                                                                           \
        } else if ((act) == ACT_QUICK_GELU) {                                                      \
            constexpr Activation A = ACT_QUICK_GELU;                                               \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            constexpr Activation A = ACT_SILU;                                                     \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

#endif
