// cross_entropy: -log softmax(logits)[target] per row, and its gradient; see cross_entropy.h.
//
//   loss = lse - x[target]        dx = dloss (exp(x - lse) - onehot(target))
//
// Rows are independent, so threads share them out; inside a row the order is that of logsumexp.h.
// The gradient goes through a block of f32, which is why it may overwrite the logits.
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
    check_targets(target, R, V);
#pragma omp parallel for num_threads(device_threads(dev)) if ((size_t)R * (size_t)V > 16384)
    for (int r = 0; r < R; r++) {
        const void *const row = dtype_at_const(t, logits, (size_t)r * (size_t)V);
        lse[r] = row_logsumexp(t, row, V, row_max(t, row, V));
        loss[r] = lse[r] - dtype_load(t, row, (size_t)target[r]);
    }
}

void cross_entropy_bwd_cpu(Device *dev, DType t, void *dlogits, const float *dloss,
                           const void *logits, const float *lse, const int32_t *target, int R,
                           int V) {
    check_targets(target, R, V);
#pragma omp parallel for num_threads(device_threads(dev)) if ((size_t)R * (size_t)V > 16384)
    for (int r = 0; r < R; r++) {
        const size_t start = (size_t)r * (size_t)V;
        const float shift = lse[r], scale = dloss[r];
        for (int i = 0; i < V; i += ROW_BLOCK) {
            const int size = row_block_size(i, V);
            float block[ROW_BLOCK], d[ROW_BLOCK];
            const float *const x = row_block(block, t, dtype_at_const(t, logits, start), i, size);
            for (int j = 0; j < size; j++) {
                d[j] = exp_f32(x[j] - shift);
            }
            if (target[r] >= i && target[r] < i + size) {
                d[target[r] - i] -= 1.0f;
            }
            for (int j = 0; j < size; j++) {
                d[j] *= scale;
            }
            dtype_narrow(t, dtype_at(t, dlogits, start + (size_t)i), d, (size_t)size);
        }
    }
}
