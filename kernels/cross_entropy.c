// cross_entropy: -log softmax(logits)[target] per row, and its gradient; see cross_entropy.h.
//
//   loss = lse - x[target]        dx = dloss (exp(x - lse) - onehot(target))
//
// Rows are independent, so threads share them out; inside a row the order is that of logsumexp.h.
// The gradient is element-wise in the logits, which is why it may overwrite them.
// Leaves out: label smoothing, ignored targets (rows without a target are not passed in).
#include "cross_entropy.h"

#include "base.h"
#include "logsumexp.h"

static void check_targets(const int32_t *target, int R, int V) {
    CHECK(R >= 1 && V >= 1, "R=%d V=%d", R, V);
    for (int r = 0; r < R; r++) {
        CHECK(target[r] >= 0 && target[r] < V, "target[%d]=%d V=%d", r, target[r], V);
    }
}

void cross_entropy_fwd_cpu(Device *dev, DType t, float *loss, float *lse, const void *logits,
                           const int32_t *target, int R, int V) {
    CHECK_POINTERS(cross_entropy_fwd, loss, lse, logits, target);
    check_targets(target, R, V);
#pragma omp parallel for num_threads(threads_for(dev, (size_t)R * (size_t)V))
    for (int r = 0; r < R; r++) {
        const void *const row = dtype_at_const(t, logits, (size_t)r * (size_t)V);
        lse[r] = row_logsumexp(t, row, V, row_max(t, row, V));
        loss[r] = lse[r] - dtype_load(t, row, (size_t)target[r]);
    }
}

void cross_entropy_bwd_cpu(Device *dev, DType t, void *dlogits, const float *dloss,
                           const void *logits, const float *lse, const int32_t *target, int R,
                           int V) {
    CHECK_POINTERS(cross_entropy_bwd, dlogits, dloss, logits, lse, target);
    check_targets(target, R, V);
#pragma omp parallel for num_threads(threads_for(dev, (size_t)R * (size_t)V))
    for (int r = 0; r < R; r++) {
        const size_t start = (size_t)r * (size_t)V;
        const float shift = lse[r], scale = dloss[r];
        for (int i = 0; i < V; i += CHUNK) {
            const int size = chunk_length((size_t)V, (size_t)i);
            const size_t at = start + (size_t)i;
            float x_buffer[CHUNK], d_buffer[CHUNK];
            const float *const x = chunk_in(x_buffer, t, logits, at, size);
            float *const d = chunk_out(d_buffer, t, dlogits, at);
#pragma omp simd // d may be x: element j depends on element j only
            for (int j = 0; j < size; j++) {
                d[j] = exp_f32(x[j] - shift);
            }
            if (target[r] >= i && target[r] < i + size) {
                d[target[r] - i] -= 1.0f;
            }
            for (int j = 0; j < size; j++) {
                d[j] *= scale;
            }
            chunk_store(t, dlogits, at, d, size);
        }
    }
}
