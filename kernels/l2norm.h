// l2norm: rows scaled to unit length.
#ifndef JOMED_KERNELS_L2NORM_H
#define JOMED_KERNELS_L2NORM_H

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

// out[n,:] = inp[n,:] / norm[n]      norm[n] = max(||inp[n,:]||, eps), eps = 1e-12
// out, inp: (N,C) t   norm: (N) f32, kept for _bwd. out may alias inp. Lane order. Agreement: sum.
typedef void l2norm_fwd_fn(Device *dev, DType t, void *out, float *norm, const void *inp, int N,
                           int C);
// dinp = (dout - (dout . out) out) / norm, and dout / norm where the norm was clamped.
// dinp, dout, out: (N,C) t. dinp may alias dout. Lane order. Agreement: sum.
typedef void l2norm_bwd_fn(Device *dev, DType t, void *dinp, const void *dout, const void *out,
                           const float *norm, int N, int C);

l2norm_fwd_fn l2norm_fwd_cpu, l2norm_fwd_cuda, l2norm_fwd_emu;
l2norm_bwd_fn l2norm_bwd_cpu, l2norm_bwd_cuda, l2norm_bwd_emu;

#ifdef __cplusplus
}
#endif
#endif
