// rope_parts: the frequencies of a rope table, taken on the host for every backend, and how a pair
// turns, one text for the CPU and for CUDA kernels. Private to rope.* and to the epilogues of
// matmul.*.
#ifndef JOMED_KERNELS_ROPE_PARTS_H
#define JOMED_KERNELS_ROPE_PARTS_H

#include <math.h>

#include "base.h"
#include "rope.h"

// Of pair j < D/2: its frequency, and which row of positions it turns by.
typedef struct {
    double freq[ROPE_MAX_D / 2];
    int axis[ROPE_MAX_D / 2];
} RopeFrequencies;

#ifdef __cplusplus
extern "C"
#endif
void rope_frequencies(RopeFrequencies *out, int D, RopeLayout layout, double theta,
                      const int *sections);

// A pair (a, b) becomes rope_turned(a, b, c, -s), rope_turned(b, a, c, s). An angle of 0 keeps its
// values: -0 * 1 + 0 would become +0, and beside an infinity NaN.
static inline HOST_DEVICE float rope_turned(float x, float other, float c, float s) {
    const float turned = fmaf(x, c, other * s);
    return s == 0.0f ? x * c : turned;
}

#ifndef __cplusplus
// Turns the H heads in x (H*D) by one row of the tables; sign -1 turns backwards. In rope.c, as
// vectors.
void rope_turn_heads(float *x, const float *cosine, const float *sine, int H, int D,
                     RopePairing pairing, float sign);
#endif

#endif
