// attention_fwd_sm90: the forward on Hopper's own instructions. Only for attention_fwd*.cu.
#ifndef JOMED_KERNELS_ATTENTION_FWD_SM90_CUH
#define JOMED_KERNELS_ATTENTION_FWD_SM90_CUH

#include "attention_parts.cuh"

// The forward of attention.h for bf16, D = 64, 80 or 128, all rows at multiples of 16 bytes; false
// where the heads of a key/value head do not fit a strip, or the card's blocks have too little
// shared memory. Only where device_arch is 90.
#define attention_fwd_sm90 CUDA_NAME(attention_fwd_sm90)
extern "C" bool attention_fwd_sm90(Device *dev, bf16 *out, float *lse, const bf16 *q, const bf16 *k,
                                   const bf16 *v, const AttentionShape *shape);
#endif
