// cast: from one storage type to another.
#ifndef JOMED_KERNELS_CAST_H
#define JOMED_KERNELS_CAST_H

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

// out[i] = round_to(inp[i]), i < n: nearest, ties to even; overflow to infinity; NaN stays NaN.
// No aliasing unless the types are equal. Agreement: exact.
typedef void cast_fn(Device *dev, DType to, void *out, DType from, const void *inp, size_t n);

cast_fn cast_cpu, cast_cuda, cast_emu;

#ifdef __cplusplus
}
#endif
#endif
