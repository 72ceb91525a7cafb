// cross_entropy: -log softmax(logits)[target] on selected rows only. Rows do not depend on each
// other: pieces of the rows, one call after the other, give the bits of one call.
#ifndef JOMED_KERNELS_CROSS_ENTROPY_H
#define JOMED_KERNELS_CROSS_ENTROPY_H

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

// lse[r] = log sum_v exp(logits[r,v])      loss[r] = lse[r] - logits[r, target[r]]
// logits: (R,V) t, only the rows that have a target (gather the hidden rows before the LM head)
// loss, lse: (R) f32   target: (R), 0..V-1. Maximum subtracted, sum in lane order. Agreement: sum.
typedef void cross_entropy_fwd_fn(Device *dev, DType t, float *loss, float *lse, const void *logits,
                                  const int32_t *target, int R, int V);
// dlogits[r,v] = dloss[r] * (exp(logits[r,v] - lse[r]) - [v == target[r]])
// dlogits, logits: (R,V) t; dlogits may alias logits. dloss: (R) f32, carries weights and
// normalisation. Agreement: sum.
typedef void cross_entropy_bwd_fn(Device *dev, DType t, void *dlogits, const float *dloss,
                                  const void *logits, const float *lse, const int32_t *target,
                                  int R, int V);

cross_entropy_fwd_fn cross_entropy_fwd_cpu, cross_entropy_fwd_cuda, cross_entropy_fwd_emu;
cross_entropy_bwd_fn cross_entropy_bwd_cpu, cross_entropy_bwd_cuda, cross_entropy_bwd_emu;

#ifdef __cplusplus
}
#endif
#endif
