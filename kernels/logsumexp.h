// logsumexp: the largest element of a row and log sum_i exp(x[i]), for the ops that need one.
//
// The row is widened to f32 in chunks; each chunk's exponentials are taken by exp_f32 in one
// vectorisable loop and then added to 16 lanes, so that the result is exactly
//   max + log(sum16(exp_f32(x - max)))
// whatever the chunk, the storage type or the instruction set. The logarithm and the sum with max
// are taken in f64 and rounded once.
// Private to kernels/: contracts are those of cross_entropy, label_logprob and infonce.
#ifndef JOMED_KERNELS_LOGSUMEXP_H
#define JOMED_KERNELS_LOGSUMEXP_H

#include "chunk.h"
#include "lanes.h"

// The largest element; NaN elements are passed over, -inf when nothing else is there.
static inline float row_max(DType t, const void *row, int n) {
    float block[CHUNK], lane[LANES];
    for (int l = 0; l < LANES; l++) {
        lane[l] = -INFINITY;
    }
    for (int i = 0; i < n; i += CHUNK) {
        const int size = chunk_length((size_t)n, (size_t)i);
        const float *const x = chunk_in(block, t, row, (size_t)i, size);
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
    float block[CHUNK], e[CHUNK], lane[LANES] = {0};
    const float shift = max == -INFINITY ? 0.0f : max; // -inf - -inf would be NaN
    for (int i = 0; i < n; i += CHUNK) {
        const int size = chunk_length((size_t)n, (size_t)i);
        const float *const x = chunk_in(block, t, row, (size_t)i, size);
        for (int j = 0; j < size; j++) {
            e[j] = exp_f32(x[j] - shift);
        }
        lanes_sum(lane, e, size);
    }
    return (float)((double)shift + log_wide(lanes_halve(lane)));
}

#endif
