// logsumexp: the largest element of a row and log sum_i exp(x[i]), for the ops that need one.
//
// The row is widened to f32 in blocks; each block's exponentials are taken by exp_f32 in one
// vectorisable loop and then added to 16 lanes, so that the result is exactly
//   max + log(sum16(exp_f32(x - max)))
// whatever the block, the storage type or the instruction set. The one logarithm per row is taken in
// double and rounded once: double log of the C library is not guaranteed to be correctly rounded,
// but an error in its last bits survives the rounding to f32 about once in 2^28 rows.
// Private to kernels/: contracts are those of cross_entropy, label_logprob and infonce.
#ifndef JOMED_KERNELS_LOGSUMEXP_H
#define JOMED_KERNELS_LOGSUMEXP_H

#include "dtype.h"
#include "lanes.h"

#define ROW_BLOCK 1024 // elements widened at once; a multiple of LANES, so lanes go on across blocks

// Elements [i, i + n) of a row as f32: the row itself, or widened into block.
static inline const float *row_block(float block[ROW_BLOCK], DType t, const void *row, int i, int n) {
    const void *const at = dtype_at_const(t, row, (size_t)i);
    if (t == DT_F32) {
        return at;
    }
    dtype_widen(block, t, at, (size_t)n);
    return block;
}

static inline int row_block_size(int i, int n) { return n - i < ROW_BLOCK ? n - i : ROW_BLOCK; }

// The largest element; NaN elements are passed over, -inf when nothing else is there.
static inline float row_max(DType t, const void *row, int n) {
    float block[ROW_BLOCK], lane[LANES];
    for (int l = 0; l < LANES; l++) {
        lane[l] = -INFINITY;
    }
    for (int i = 0; i < n; i += ROW_BLOCK) {
        const int size = row_block_size(i, n);
        const float *const x = row_block(block, t, row, i, size);
        int j = 0;
        for (; j + LANES <= size; j += LANES) {
            for (int l = 0; l < LANES; l++) {
                lane[l] = x[j + l] > lane[l] ? x[j + l] : lane[l];
            }
        }
        for (int l = 0; j + l < size; l++) {
            lane[l] = x[j + l] > lane[l] ? x[j + l] : lane[l];
        }
    }
    for (int l = 1; l < LANES; l++) {
        lane[0] = lane[l] > lane[0] ? lane[l] : lane[0];
    }
    return lane[0];
}

// log sum_i exp(row[i]), given max = row_max(...). A row of -inf gives -inf; a NaN gives NaN.
static inline float row_logsumexp(DType t, const void *row, int n, float max) {
    float block[ROW_BLOCK], e[ROW_BLOCK], lane[LANES] = {0};
    const float shift = max == -INFINITY ? 0.0f : max; // -inf - -inf would be NaN
    for (int i = 0; i < n; i += ROW_BLOCK) {
        const int size = row_block_size(i, n);
        const float *const x = row_block(block, t, row, i, size);
        for (int j = 0; j < size; j++) {
            e[j] = exp_f32(x[j] - shift);
        }
        int j = 0;
        for (; j + LANES <= size; j += LANES) {
            for (int l = 0; l < LANES; l++) {
                lane[l] += e[j + l];
            }
        }
        for (int l = 0; j + l < size; l++) {
            lane[l] += e[j + l];
        }
    }
    return (float)((double)shift + log((double)lanes_halve(lane)));
}

#endif
