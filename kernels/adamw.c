// adamw: one update of Adam with decoupled weight decay; see adamw.h.
//
// Element-wise, so threads and vectors change nothing. The bias corrections and the decay factor
// are formed once in double; (1 - beta) uses the f32 beta, so that the weights of old and new sum
// to one and the correction at step 1 cancels exactly.
#include "adamw.h"

#include "adamw_parts.h"

#define BLOCK 4096 // elements one thread takes at a time

// b^n by squaring: pow of the C library would make bits depend on its version.
static double power(double b, int n) {
    double result = 1;
    for (; n > 0; n /= 2, b *= b) {
        if (n % 2) {
            result *= b;
        }
    }
    return result;
}

AdamWFactors adamw_factors(const AdamWConfig *config) {
    const double lr = (double)config->lr, beta1 = (double)config->beta1;
    const double beta2 = (double)config->beta2;
    return (AdamWFactors){
        .beta1 = config->beta1,
        .one_minus_beta1 = (float)(1 - beta1),
        .beta2 = config->beta2,
        .one_minus_beta2 = (float)(1 - beta2),
        .correction2 = (float)(1 - power(beta2, config->step)),
        .keep = (float)(1 - lr * (double)config->weight_decay),
        .step_size = (float)(lr / (1 - power(beta1, config->step))),
        .eps = config->eps,
    };
}

static void update(float *w, float *m, float *v, const float *grad, float grad_scale, size_t n,
                   const AdamWFactors *of) {
    const AdamWFactors f = *of; // a local copy cannot alias the arrays
    for (size_t i = 0; i < n; i++) {
        const AdamWElement e = {w[i], m[i], v[i]};
        const AdamWElement next = adamw_element(e, grad[i] * grad_scale, f);
        m[i] = next.m;
        v[i] = next.v;
        w[i] = next.w;
    }
}

void adamw_cpu(Device *dev, DType t, void *param, float *master, float *m, float *v,
               const float *grad, const float *grad_scale, size_t n, const AdamWConfig *config) {
    CHECK(n >= 1 && config->step >= 1, "n=%zu step=%d", n, config->step);
    const AdamWFactors factors = adamw_factors(config);
    const float by = grad_scale ? *grad_scale : 1.0f;
    const size_t blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads(device_threads(dev)) if (blocks > 4)
    for (size_t b = 0; b < blocks; b++) {
        const size_t i = b * BLOCK, size = n - i < BLOCK ? n - i : BLOCK;
        update(master + i, m + i, v + i, grad + i, by, size, &factors);
        if (param != (void *)master) {
            dtype_narrow(t, dtype_at(t, param, i), master + i, size);
        }
    }
}
