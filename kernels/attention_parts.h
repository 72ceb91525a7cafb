// attention_parts: what the attentions share: who sees whom, and the scalar steps whose rounding is
// part of the contract, one text for the CPU and for CUDA kernels. Private to attention*.
#ifndef JOMED_KERNELS_ATTENTION_PARTS_H
#define JOMED_KERNELS_ATTENTION_PARTS_H

#include <math.h>

#include "attention.h"
#include "base.h"
#include "lanes.h"

#define MAX_D 256

// One sequence.
typedef struct {
    int q0, k0; // first rows in the packed tensors
    int Tq, Tk;
} Span;

static inline HOST_DEVICE Span span_of(const AttentionShape *shape, int b) {
    const int rows = shape->cu_k[b + 1] - shape->cu_k[b];
    const Span span = {shape->cu_q[b], shape->cu_k[b], shape->cu_q[b + 1] - shape->cu_q[b],
                       shape->used_k ? shape->used_k[b] : rows};
    return span;
}

// How many keys query i sees: always the first ones.
static inline HOST_DEVICE int visible(const AttentionShape *shape, Span span, int i) {
    if (!shape->is_causal) {
        return span.Tk;
    }
    const int n = i + span.Tk - span.Tq + 1;
    return n < 0 ? 0 : n;
}

static inline HOST_DEVICE float slope_of(const AttentionShape *shape, int h) {
    return shape->alibi ? shape->alibi[h] : 0.0f;
}

// position: of the query, counted like the keys. Both are below 2^24, so their distance is exact.
static inline HOST_DEVICE float score(float dot, float scale, float slope, float position, int j) {
    return fmaf(dot, scale, -slope * fabsf(position - (float)j));
}

static inline void check_shape(const AttentionShape *s) {
    CHECK(s->B >= 1 && s->H >= 1 && s->Hkv >= 1 && s->H % s->Hkv == 0 && s->D >= 1 && s->D <= MAX_D,
          "B=%d H=%d Hkv=%d D=%d", s->B, s->H, s->Hkv, s->D);
    CHECK(s->q_stride >= s->H * s->D && s->k_stride >= s->Hkv * s->D &&
              s->v_stride >= s->Hkv * s->D && s->out_stride >= s->H * s->D,
          "H=%d Hkv=%d D=%d, strides %d %d %d %d", s->H, s->Hkv, s->D, s->q_stride, s->k_stride,
          s->v_stride, s->out_stride);
    CHECK_POINTERS(attention, s->cu_q, s->cu_k);
}

// A backward has no rows of a cache that it may leave alone.
static inline void check_all_used(const AttentionShape *s) {
    CHECK(!s->used_k, "a backward over %d rows of a cache", s->Nk);
}

// p and ds of one pair, from the two dot products of the backward.
static inline HOST_DEVICE void pair_backward(float *p, float *ds, float s, float lse, float dp,
                                             float delta, float scale) {
    *p = exp_f32(s - lse);
    *ds = *p * (dp - delta) * scale;
}

#endif
