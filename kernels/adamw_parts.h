// adamw_parts: the step's factors and the update of one element, one text for the CPU and for CUDA
// kernels. Private to adamw.*.
#ifndef JOMED_KERNELS_ADAMW_PARTS_H
#define JOMED_KERNELS_ADAMW_PARTS_H

#include <math.h>

#include "adamw.h"
#include "base.h"

typedef struct {
    float grad_scale;
    float beta1, one_minus_beta1, beta2, one_minus_beta2, correction2;
    float keep;      // 1 - lr weight_decay
    float step_size; // lr / (1 - beta1^step)
    float eps;
    bool is_update; // else nothing moves
} AdamWFactors;

// b^n by squaring: pow of the C library would make bits depend on its version.
static inline HOST_DEVICE double adamw_power(double b, int n) {
    double result = 1;
    for (; n > 0; n /= 2, b *= b) {
        if (n % 2) {
            result *= b;
        }
    }
    return result;
}

// Counts the step and forms its factors. In double, once; (1 - beta) uses the f32 beta, so that the
// weights of old and new sum to one and the correction at step 1 cancels exactly.
static inline HOST_DEVICE AdamWFactors adamw_begin(AdamWCount *count, const float *grad_scale,
                                                   const AdamWConfig *config) {
    AdamWFactors f = {};
    f.grad_scale = grad_scale ? *grad_scale : 1.0f;
    f.is_update = isfinite(f.grad_scale);
    if (!f.is_update) {
        count->skipped++;
        return f;
    }
    count->skipped = 0;
    const int step = ++count->step;
    const double lr = (double)config->lr, beta1 = (double)config->beta1;
    const double beta2 = (double)config->beta2;
    f.beta1 = config->beta1;
    f.one_minus_beta1 = (float)(1 - beta1);
    f.beta2 = config->beta2;
    f.one_minus_beta2 = (float)(1 - beta2);
    f.correction2 = (float)(1 - adamw_power(beta2, step));
    f.keep = (float)(1 - lr * (double)config->weight_decay);
    f.step_size = (float)(lr / (1 - adamw_power(beta1, step)));
    f.eps = config->eps;
    return f;
}

typedef struct {
    float w, m, v;
} AdamWElement;

// keep is f.keep, or 1 where nothing decays.
static inline HOST_DEVICE AdamWElement adamw_element(AdamWElement e, float grad, float keep,
                                                     AdamWFactors f) {
    const float g = grad * f.grad_scale;
    const float m = f.beta1 * e.m + f.one_minus_beta1 * g;
    const float v = f.beta2 * e.v + f.one_minus_beta2 * g * g;
    const float w = e.w * keep - f.step_size * m / (sqrtf(v / f.correction2) + f.eps);
    const AdamWElement next = {w, m, v};
    return next;
}

#endif
