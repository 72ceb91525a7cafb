// l2norm: rows scaled to unit length on CUDA; see l2norm.h.
//
//   version  idea               shape  time                  % of peak bandwidth
//   kernel1  one block per row  -      not yet run on a GPU  -
#include "l2norm.h"

#include "rows.cuh"

static constexpr float EPS = 1e-12f; // the least norm, as torch.nn.functional.normalize

// Launch: N blocks of row_block(C) threads. 128 bytes of shared memory (the sum).
template <typename T>
static __global__ void l2norm_fwd_kernel1(T *out, float *norm, const T *inp, int C) {
    const size_t row = (size_t)blockIdx.x * C;
    float sum = 0;
    ROW_STRIDE(c, C) {
        const float x = to_float(inp[row + c]);
        sum = fmaf(x, x, sum);
    }
    const float root = sqrtf(block_sum(sum));
    const float length = root < EPS ? EPS : root; // NaN stays NaN
    ROW_STRIDE(c, C) { out[row + c] = from_float<T>(to_float(inp[row + c]) / length); }
    if (threadIdx.x == 0) {
        norm[blockIdx.x] = length;
    }
}

// Launch: as the forward. A clamped norm is a constant: no part of dout is along a radius that does
// not count.
template <typename T>
static __global__ void l2norm_bwd_kernel1(T *dinp, const T *dout, const T *out, const float *norm,
                                          int C) {
    const size_t row = (size_t)blockIdx.x * C;
    const float length = norm[blockIdx.x];
    float sum = 0;
    ROW_STRIDE(c, C) { sum = fmaf(to_float(dout[row + c]), to_float(out[row + c]), sum); }
    sum = block_sum(sum);
    const float along = length == EPS ? 0.0f : sum;
    ROW_STRIDE(c, C) {
        const float y = to_float(out[row + c]);
        dinp[row + c] = from_float<T>(fmaf(-along, y, to_float(dout[row + c])) / length);
    }
}

CUDA_OP(l2norm_fwd)(Device *dev, DType t, void *out, float *norm, const void *inp, int N, int C) {
    FOR_DTYPE(t, T, LAUNCH((l2norm_fwd_kernel1<T>), N, row_block(C), 0, device_stream(dev),
                           (T *)out, norm, (const T *)inp, C));
}

CUDA_OP(l2norm_bwd)(Device *dev, DType t, void *dinp, const void *dout, const void *out,
                    const float *norm, int N, int C) {
    FOR_DTYPE(t, T, LAUNCH((l2norm_bwd_kernel1<T>), N, row_block(C), 0, device_stream(dev),
                           (T *)dinp, (const T *)dout, (const T *)out, norm, C));
}
