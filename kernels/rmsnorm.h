// rmsnorm: root-mean-square normalisation. Source: Zhang and Sennrich 2019; weight as in Llama.
#ifndef JOMED_KERNELS_RMSNORM_H
#define JOMED_KERNELS_RMSNORM_H

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

//   out[n,c] = weight[c] * round_t(inp[n,c] * rstd[n])      rstd = 1 / sqrt(mean_c(inp^2) + eps)
// The product before the weight is rounded to t, as Qwen2 and Mistral do: with t = bf16 there are
// two roundings, the one exception to "one rounding per output".
// out, inp: (N,C) t   weight: (C) t   rstd: (N) f32, kept for _bwd. out may alias inp.
// Sum over c in lane order. Agreement: sum.
typedef void rmsnorm_fwd_fn(Device *dev, DType t, void *out, float *rstd, const void *inp,
                            const void *weight, int N, int C, float eps);

//   with g = dout * weight and x^ = inp rstd:
//   dinp = residual + rstd (g - x^ mean_c(g x^))      dweight += sum_n dout x^
// residual: (N,C) t or NULL for 0, as in layernorm_bwd. dinp may alias dout or residual.
// dweight: (C) f32 or NULL, on the CPU a chain over n that starts from the stored value, on a GPU
// as in layernorm_bwd. Agreement: sum.
typedef void rmsnorm_bwd_fn(Device *dev, DType t, void *dinp, float *dweight,
                            const void *residual, const void *dout, const void *inp,
                            const void *weight, const float *rstd, int N, int C);

rmsnorm_fwd_fn rmsnorm_fwd_cpu, rmsnorm_fwd_cuda, rmsnorm_fwd_emu;
rmsnorm_bwd_fn rmsnorm_bwd_cpu, rmsnorm_bwd_cuda, rmsnorm_bwd_emu;

#ifdef __cplusplus
}
#endif
#endif
