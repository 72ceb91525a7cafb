// adamw_parts: the update of one element, one text for the CPU and for CUDA kernels. Private to
// adamw.*.
#ifndef JOMED_KERNELS_ADAMW_PARTS_H
#define JOMED_KERNELS_ADAMW_PARTS_H

#include <math.h>

#include "adamw.h"
#include "base.h"

typedef struct {
    float beta1, one_minus_beta1, beta2, one_minus_beta2, correction2;
    float keep;      // 1 - lr weight_decay
    float step_size; // lr / (1 - beta1^step)
    float eps;
} AdamWFactors;

#ifdef __cplusplus
extern "C"
#endif
AdamWFactors adamw_factors(const AdamWConfig *config);

typedef struct {
    float w, m, v;
} AdamWElement;

// g is the gradient after scaling.
static inline HOST_DEVICE AdamWElement adamw_element(AdamWElement e, float g, AdamWFactors f) {
    const float m = f.beta1 * e.m + f.one_minus_beta1 * g;
    const float v = f.beta2 * e.v + f.one_minus_beta2 * g * g;
    const float w = e.w * f.keep - f.step_size * m / (sqrtf(v / f.correction2) + f.eps);
    const AdamWElement next = {w, m, v};
    return next;
}

#endif
