// layernorm: layer normalisation over the last dimension. Source: Ba et al. 2016, section 3.
#ifndef JOMED_KERNELS_LAYERNORM_H
#define JOMED_KERNELS_LAYERNORM_H

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

//   out[n,c] = (inp[n,c] - mean[n]) * rstd[n] * weight[c] + bias[c]
//   rstd = 1 / sqrt(variance + eps), biased variance from the centred values, eps inside the root
// out, inp: (N,C) t   weight, bias: (C) t   mean, rstd: (N) f32, kept for _bwd
// out may alias inp. Sums over c in lane order. Agreement: sum.
typedef void layernorm_fwd_fn(Device *dev, DType t, void *out, float *mean, float *rstd,
                              const void *inp, const void *weight, const void *bias, int N, int C,
                              float eps);

//   with g = dout * weight and x^ = (inp - mean) rstd:
//   dinp = residual + rstd (g - mean_c(g) - x^ mean_c(g x^))
//   dweight += sum_n dout x^   dbias += sum_n dout
// dinp, dout, inp: (N,C) t   residual: (N,C) t or NULL for 0, the gradient that comes around the
// norm: one rounding. dinp may alias dout or residual.
// dweight, dbias: (C) f32 or NULL, on the CPU chains over n that start from the stored value, on a
// GPU sums of parts of the rows in an order that N and C fix. Agreement: sum.
typedef void layernorm_bwd_fn(Device *dev, DType t, void *dinp, float *dweight, float *dbias,
                              const void *residual, const void *dout, const void *inp,
                              const void *weight, const float *mean, const float *rstd, int N,
                              int C);

layernorm_fwd_fn layernorm_fwd_cpu, layernorm_fwd_cuda, layernorm_fwd_emu;
layernorm_bwd_fn layernorm_bwd_cpu, layernorm_bwd_cuda, layernorm_bwd_emu;

#ifdef __cplusplus
}
#endif
#endif
