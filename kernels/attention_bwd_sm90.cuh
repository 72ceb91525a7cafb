// attention_bwd_sm90: the backward of short sequences on Hopper's own instructions. Only for
// attention_bwd.cu.
#ifndef JOMED_KERNELS_ATTENTION_BWD_SM90_CUH
#define JOMED_KERNELS_ATTENTION_BWD_SM90_CUH

#include "attention_parts.cuh"

// The arguments of attention_bwd, in bf16, all at multiples of 16 bytes, their rows too.
typedef struct {
    bf16 *dq, *dk, *dv;
    float *delta;
    const bf16 *dout, *out;
    const float *lse;
    const bf16 *q, *k, *v;
} BwdTensors;

// Assigns dq, dk, dv and delta of all sequences of at most so many keys as it returns; -1 where
// heads of this width are not for it. Only where device_arch is 90.
#define attention_bwd_sm90 CUDA_NAME(attention_bwd_sm90)
extern "C" int attention_bwd_sm90(Device *dev, const BwdTensors &x, const AttentionShape &s);
#endif
