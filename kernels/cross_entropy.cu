// cross_entropy: -log softmax(logits)[target] on CUDA; see cross_entropy.h.
//
// Two passes over a row: the maximum, then the sum of exponentials. The gradient is element-wise in
// the logits, which is why it may overwrite them. A target outside the row stops the program
// (assert).
// Left out: the product with the LM head in the same kernel, without logits in memory.
//
//   version  idea               shape  time                  % of peak bandwidth
//   kernel1  one block per row  -      not yet run on a GPU  -
#include "cross_entropy.h"

#include <assert.h>

#include "rows.cuh"

// Launch: R blocks of row_block(V) threads. 128 bytes of shared memory (maximum, sum).
template <typename T>
static __global__ void cross_entropy_fwd_kernel1(float *loss, float *lse, const T *logits,
                                                 const int32_t *target, int V) {
    const T *row = logits + (size_t)blockIdx.x * V;
    const float max = row_max(row, V, 1);
    const float sum = row_logsumexp(row, V, 1, max);
    if (threadIdx.x == 0) {
        const int32_t v = target[blockIdx.x];
        assert(v >= 0 && v < V);
        lse[blockIdx.x] = sum;
        loss[blockIdx.x] = sum - to_float(row[v]);
    }
}

// Launch: R blocks of row_block(V) threads. No shared memory.
template <typename T>
static __global__ void cross_entropy_bwd_kernel1(T *dlogits, const float *dloss, const T *logits,
                                                 const float *lse, const int32_t *target, int V) {
    const size_t row = (size_t)blockIdx.x * V;
    const float shift = lse[blockIdx.x], scale = dloss[blockIdx.x];
    const int32_t wanted = target[blockIdx.x];
    assert(wanted >= 0 && wanted < V);
    ROW_STRIDE(v, V) {
        const float p = exp_f32(to_float(logits[row + v]) - shift);
        dlogits[row + v] = from_float<T>((v == wanted ? p - 1.0f : p) * scale);
    }
}

CUDA_OP(cross_entropy_fwd)(Device *dev, DType t, float *loss, float *lse, const void *logits,
                           const int32_t *target, int R, int V) {
    CHECK(R >= 1 && V >= 1, "R=%d V=%d", R, V);
    FOR_DTYPE(t, T, LAUNCH((cross_entropy_fwd_kernel1<T>), R, row_block(V), 0, device_stream(dev),
                           loss, lse, (const T *)logits, target, V));
}

CUDA_OP(cross_entropy_bwd)(Device *dev, DType t, void *dlogits, const float *dloss,
                           const void *logits, const float *lse, const int32_t *target, int R,
                           int V) {
    CHECK(R >= 1 && V >= 1, "R=%d V=%d", R, V);
    FOR_DTYPE(t, T, LAUNCH((cross_entropy_bwd_kernel1<T>), R, row_block(V), 0, device_stream(dev),
                           (T *)dlogits, dloss, (const T *)logits, lse, target, V));
}
