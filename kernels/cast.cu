// cast: CUDA; see cast.h.
//
// Every bf16 and every f16 is an f32, so that going through f32 rounds once. Equal types are a copy
// of bytes: a signalling NaN stays one.
//
//   version  idea                    shape  time                  % of peak bandwidth
//   kernel1  one element per thread  -      not yet run on a GPU  -
#include "cast.h"

#include "cuda_common.cuh"

// Launch: any grid, BLOCK threads. No shared memory.
static const int BLOCK = 256;

template <typename To, typename From>
static __global__ void cast_kernel1(To *out, const From *inp, size_t n) {
    GRID_STRIDE(i, n) { out[i] = from_float<To>(to_float(inp[i])); }
}

CUDA_OP(cast)(Device *dev, DType to, void *out, DType from, const void *inp, size_t n) {
    if (to == from) {
        if (out != inp) {
            device_copy(dev, out, inp, n * dtype_size(to));
        }
        return;
    }
    FOR_DTYPE(to, To, FOR_DTYPE(from, From, LAUNCH((cast_kernel1<To, From>), grid_for(n, BLOCK),
              BLOCK, 0, device_stream(dev), (To *)out, (const From *)inp, n)));
}
