// residual: sums of whole tensors.
#ifndef JOMED_KERNELS_RESIDUAL_H
#define JOMED_KERNELS_RESIDUAL_H

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

// out[i] = a[i] + b[i], i < n. out may alias either. Agreement: exact after one rounding.
// Its backward needs no op: both gradients are dout.
typedef void residual_fwd_fn(Device *dev, DType t, void *out, const void *a, const void *b,
                             size_t n);

residual_fwd_fn residual_fwd_cpu, residual_fwd_cuda, residual_fwd_emu;

#ifdef __cplusplus
}
#endif
#endif
