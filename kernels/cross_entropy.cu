// cross_entropy: -log softmax(logits)[target] on CUDA; see cross_entropy.h.
//
// One pass over a row forward (softmax_row.cuh). The gradient is element-wise in the logits, which
// is why it may overwrite them: 16 bytes per access, several blocks per row. A target outside the
// row stops the program (assert).
// Left out: the product with the LM head in the same kernel. Only rows with a target come here, a
// bounded piece of them at a time (READER_LOGITS), so that logits stay small beside the head's
// weight (V,C), by which a kernel without logits would have to multiply once more for the gradient.
//
//   version      idea                            shape  time                  % of peak bandwidth
//   fwd_kernel2  one block per row, one pass     -      not yet run on a GPU  -
//   bwd_kernel2  a block per part of a row       -      not yet run on a GPU  -
#include "cross_entropy.h"

#include <assert.h>

#include "softmax_row.cuh"

// Launch: R blocks of softmax_block(V, EACH) threads. 384 bytes of shared memory.
template <typename T, int EACH>
static __global__ void cross_entropy_fwd_kernel2(float *loss, float *lse, const T *logits,
                                                 const int32_t *target, int V) {
    const T *row = logits + (size_t)blockIdx.x * V;
    const SoftmaxRow all = softmax_row<T, EACH>(row, V);
    if (threadIdx.x == 0) {
        const int32_t v = target[blockIdx.x];
        assert(v >= 0 && v < V);
        lse[blockIdx.x] = all.lse;
        loss[blockIdx.x] = all.lse - to_float(row[v]);
    }
}

// Launch: (R, any) blocks of BLOCK threads. No shared memory.
static const int BLOCK = 256;
static const int PER_THREAD = 4; // accesses
template <typename T, int EACH>
static __global__ void cross_entropy_bwd_kernel2(T *dlogits, const float *dloss, const T *logits,
                                                 const float *lse, const int32_t *target, int V) {
    const size_t row = (size_t)blockIdx.x * V;
    const float shift = lse[blockIdx.x], scale = dloss[blockIdx.x];
    const int32_t wanted = target[blockIdx.x];
    assert(wanted >= 0 && wanted < V);
    for (int v = (blockIdx.y * BLOCK + threadIdx.x) * EACH; v < V; v += gridDim.y * BLOCK * EACH) {
        float x[EACH];
        softmax_load<T, EACH>(x, logits + row + v);
        UNROLL for (int e = 0; e < EACH; e++) {
            const float p = exp_f32(x[e] - shift);
            x[e] = (v + e == wanted ? p - 1.0f : p) * scale;
        }
        softmax_store<T, EACH>(dlogits + row + v, x);
    }
}

CUDA_OP(cross_entropy_fwd)(Device *dev, DType t, float *loss, float *lse, const void *logits,
                           const int32_t *target, int R, int V) {
    CHECK_POINTERS(cross_entropy_fwd, loss, lse, logits, target);
    CHECK(R >= 1 && V >= 1, "R=%d V=%d", R, V);
    FOR_LOGITS(t, T, EACH, is_packable(logits), V,
               LAUNCH((cross_entropy_fwd_kernel2<T, EACH>), R, softmax_block(V, EACH), 0,
                      device_stream(dev), loss, lse, (const T *)logits, target, V));
}

CUDA_OP(cross_entropy_bwd)(Device *dev, DType t, void *dlogits, const float *dloss,
                           const void *logits, const float *lse, const int32_t *target, int R,
                           int V) {
    CHECK_POINTERS(cross_entropy_bwd, dlogits, dloss, logits, lse, target);
    CHECK(R >= 1 && V >= 1, "R=%d V=%d", R, V);
    const bool is_aligned = is_packable(dlogits) && is_packable(logits);
    FOR_LOGITS(t, T, EACH, is_aligned, V, const unsigned each = EACH * BLOCK * PER_THREAD;
               LAUNCH((cross_entropy_bwd_kernel2<T, EACH>), dim3(R, (V + each - 1) / each), BLOCK,
                      0, device_stream(dev), (T *)dlogits, dloss, (const T *)logits, lse, target,
                      V));
}
