// rope_parts: the frequencies of a rope table, taken on the host for every backend. Private to
// rope.*.
#ifndef JOMED_KERNELS_ROPE_PARTS_H
#define JOMED_KERNELS_ROPE_PARTS_H

#include "rope.h"

#define ROPE_MAX_D 256

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

#endif
