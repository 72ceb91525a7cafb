// rows: what the kernels share that give one block to each row. Only for *.cu.
#ifndef JOMED_KERNELS_ROWS_CUH
#define JOMED_KERNELS_ROWS_CUH

#include "cuda_common.cuh"
#include "lanes.h"

// Threads of the block of a row of C elements: whole warps, 256 at most. It depends on C alone, so
// that the order of a row's sums does not depend on the rest of the batch.
static inline unsigned row_block(int C) {
    return C >= 256 ? 256 : ((unsigned)C + WARP - 1) / WARP * WARP;
}

// This thread's elements of a row of C.
#define ROW_STRIDE(c, C) for (int c = threadIdx.x; c < (C); c += blockDim.x)

// The largest element row[i * step], i < n; NaN elements are passed over, -inf when nothing else is
// there.
template <typename T> static __device__ inline float row_max(const T *row, int n,
                                                              size_t step CALLER) {
    float max = -INFINITY;
    ROW_STRIDE(i, n) {
        const float x = to_float(row[i * step]);
        max = x > max ? x : max;
    }
    return block_max(max CALLER_PASS);
}

// log sum_i exp(row[i * step]), given max. A row of -inf gives -inf; a NaN gives NaN. Logarithm and
// sum with max are taken in f64 and rounded once, as on the CPU.
template <typename T>
static __device__ inline float row_logsumexp(const T *row, int n, size_t step, float max CALLER) {
    const float shift = max == -INFINITY ? 0.0f : max; // -inf - -inf would be NaN
    float sum = 0;
    ROW_STRIDE(i, n) { sum += exp_f32(to_float(row[i * step]) - shift); }
    return (float)((double)shift + log_wide(block_sum(sum CALLER_PASS)));
}

#endif
