// label_logprob: raw logits and log-probabilities of chosen tokens, and each row's greedy token, on
// CUDA; see label_logprob.h.
//
// Maximum, sum of exponentials, then the first element that equals the maximum. Positions are
// compared as f32, which is exact below 2^24.
//
//   version  idea               shape  time                  % of peak bandwidth
//   kernel1  one block per row  -      not yet run on a GPU  -
#include "label_logprob.h"

#include <assert.h>

#include "rows.cuh"

static const int BLOCK = 128; // threads of the picks

struct Least {
    __device__ float operator()(float a, float b) const { return a < b ? a : b; }
};

// Launch: R blocks of row_block(V) threads. 128 bytes of shared memory each for maximum, sum and
// position.
template <typename T>
static __global__ void label_rows_kernel1(float *lse, int32_t *greedy, const T *logits, int V) {
    const T *row = logits + (size_t)blockIdx.x * V;
    const float max = row_max(row, V, 1);
    const float sum = row_logsumexp(row, V, 1, max);
    float first = INFINITY;
    ROW_STRIDE(v, V) {
        if (to_float(row[v]) == max && first == INFINITY) {
            first = (float)v;
        }
    }
    first = block_reduce(first, Least(), INFINITY);
    if (threadIdx.x == 0) {
        lse[blockIdx.x] = sum;
        greedy[blockIdx.x] = first == INFINITY ? 0 : (int32_t)first; // a row of NaN has no largest
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
    CHECK(S >= 1 && R >= 1 && V >= 1 && V <= 1 << 24, "S=%d R=%d V=%d", S, R, V);
    cudaStream_t stream = device_stream(dev);
    FOR_DTYPE(t, T, LAUNCH((label_rows_kernel1<T>), R, row_block(V), 0, stream, lse, greedy,
                           (const T *)logits, V);
              LAUNCH((label_picks_kernel1<T>), grid_for(S, BLOCK), BLOCK, 0, stream, raw, logprob,
                     lse, (const T *)logits, row, token, S, R, V));
}
