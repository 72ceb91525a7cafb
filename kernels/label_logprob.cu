// label_logprob: raw logits and log-probabilities of chosen tokens, and each row's greedy token, on
// CUDA; see label_logprob.h.
//
// Rows in one pass (softmax_row.cuh); positions are compared as f32, which is exact below 2^24.
// Then the picks, a gather.
//
//   version  idea                         shape  time                  % of peak bandwidth
//   kernel2  one block per row, one pass  -      not yet run on a GPU  -
#include "label_logprob.h"

#include <assert.h>

#include "softmax_row.cuh"

static const int BLOCK = 128; // threads of the picks

// Launch: R blocks of softmax_block(V, EACH) threads. 384 bytes of shared memory.
template <typename T, int EACH>
static __global__ void label_rows_kernel2(float *lse, int32_t *greedy, const T *logits, int V) {
    const SoftmaxRow all = softmax_row<T, EACH>(logits + (size_t)blockIdx.x * V, V);
    if (threadIdx.x == 0) {
        lse[blockIdx.x] = all.lse;
        greedy[blockIdx.x] = all.first == INFINITY ? 0 : (int32_t)all.first;
    }
}

// Launch: any grid, BLOCK threads. No shared memory.
template <typename T>
static __global__ void label_picks_kernel1(float *raw, float *logprob, const float *lse,
                                           const T *logits, const int32_t *row,
                                           const int32_t *token, int S, int R, int V) {
    GRID_STRIDE(s, (size_t)S) {
        const int32_t r = row[s], v = token[s];
        assert(r >= 0 && r < R && v >= 0 && v < V);
        const float x = to_float(logits[(size_t)r * V + v]);
        raw[s] = x;
        logprob[s] = x - lse[r];
    }
}

CUDA_OP(label_logprob)(Device *dev, DType t, float *raw, float *logprob, int32_t *greedy,
                       float *lse, const void *logits, const int32_t *row, const int32_t *token,
                       int S, int R, int V) {
    CHECK_POINTERS(label_logprob, raw, logprob, greedy, lse, logits, row, token);
    CHECK(S >= 1 && R >= 1 && V >= 1 && V <= 1 << 24, "S=%d R=%d V=%d", S, R, V);
    cudaStream_t stream = device_stream(dev);
    FOR_LOGITS(t, T, EACH, is_packable(logits), V,
               LAUNCH((label_rows_kernel2<T, EACH>), R, softmax_block(V, EACH), 0, stream, lse,
                      greedy, (const T *)logits, V));
    FOR_DTYPE(t, T, LAUNCH((label_picks_kernel1<T>), grid_for(S, BLOCK), BLOCK, 0, stream, raw,
                           logprob, lse, (const T *)logits, row, token, S, R, V));
}
