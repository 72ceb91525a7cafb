// pool: the mean of each packed sequence.
#ifndef JOMED_KERNELS_POOL_H
#define JOMED_KERNELS_POOL_H

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

// out[b,:] = mean of inp rows cu_seqlens[b] .. cu_seqlens[b+1]-1 (every sequence has one at least)
// out: (B,C) t   inp: (N,C) t   cu_seqlens: (B+1). Plain ascending sum, then one division.
// Agreement: sum.
typedef void pool_fwd_fn(Device *dev, DType t, void *out, const void *inp,
                         const int32_t *cu_seqlens, int B, int N, int C);
// dinp[n,:] = dout[b(n),:] / length(b)   dinp: (N,C) t   dout: (B,C) t. Agreement: exact after one
// rounding.
typedef void pool_bwd_fn(Device *dev, DType t, void *dinp, const void *dout,
                         const int32_t *cu_seqlens, int B, int N, int C);

pool_fwd_fn pool_fwd_cpu, pool_fwd_cuda, pool_fwd_emu;
pool_bwd_fn pool_bwd_cpu, pool_bwd_cuda, pool_bwd_emu;

#ifdef __cplusplus
}
#endif
#endif
