// adamw: one update of Adam with decoupled weight decay; see adamw.h.
//
// Element-wise, so threads and vectors change nothing.
#include "adamw.h"

#include "adamw_parts.h"
#include "base.h"

#define BLOCK 4096 // elements one thread takes at a time, a multiple of DECAY_SPAN

// Elements first .. last - 1, which all decay or all do not.
static void update(float *w, float *m, float *v, const float *grad, size_t first, size_t last,
                   float keep, const AdamWFactors *of) {
    const AdamWFactors f = *of; // a local copy cannot alias the arrays
    for (size_t i = first; i < last; i++) {
        const AdamWElement e = {w[i], m[i], v[i]};
        const AdamWElement next = adamw_element(e, grad[i], keep, f);
        m[i] = next.m;
        v[i] = next.v;
        w[i] = next.w;
    }
}

static bool decays_at(const uint8_t *decays, size_t i) {
    return !decays || decays[i / DECAY_SPAN];
}

void adamw_cpu(Device *dev, DType t, void *param, float *master, float *m, float *v,
               AdamWCount *count, const float *grad, const float *grad_scale,
               const uint8_t *decays, size_t n, const AdamWConfig *config) {
    CHECK_POINTERS(adamw, param, master, m, v, count, grad, config);
    CHECK(n >= 1, "n=%zu", n);
    const AdamWFactors factors = adamw_begin(count, grad_scale, config);
    const size_t blocks = factors.is_update ? (n + BLOCK - 1) / BLOCK : 0;
#pragma omp parallel for num_threads(device_threads(dev)) if (blocks > 4)
    for (size_t b = 0; b < blocks; b++) {
        const size_t first = b * BLOCK, last = n - first < BLOCK ? n : first + BLOCK;
        for (size_t i = first, end; i < last; i = end) { // runs that decay alike
            const bool is_decaying = decays_at(decays, i);
            for (end = i; end < last && decays_at(decays, end) == is_decaying;) {
                end = last - end < DECAY_SPAN ? last : end + DECAY_SPAN;
            }
            update(master, m, v, grad, i, end, is_decaying ? factors.keep : 1.0f, &factors);
        }
        if (param != (void *)master) {
            dtype_narrow(t, dtype_at(t, param, first), master + first, last - first);
        }
    }
}
