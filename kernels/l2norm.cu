// l2norm: rows scaled to unit length on CUDA; see l2norm.h.
//
// A row is read twice by its block, the second time out of the first-level cache: there are as many
// rows as pictures or texts, so the op takes microseconds.
//
//   version  idea                                   shape  time                  % of peak
//   kernel1  one block per row                      -      not yet run on a GPU  -
//   kernel1  the same, 16 bytes (HAS_PACKS)         -      not yet run on a GPU  -
#include "l2norm.h"

#include "rows.cuh"

static constexpr float EPS = 1e-12f; // the least norm, as torch.nn.functional.normalize

// Launch: N blocks of row_block(C) threads. 128 bytes of shared memory (the sum).
template <typename T, bool HAS_PACKS>
static __global__ void l2norm_fwd_kernel1(T *out, float *norm, const T *inp, int C) {
    const size_t row = (size_t)blockIdx.x * C;
    float sum = 0;
    row_each<HAS_PACKS>(inp + row, inp + row, C,
                        [&](float x, float) { sum = fmaf(x, x, sum); });
    const float root = sqrtf(block_sum(sum));
    const float length = root < EPS ? EPS : root; // NaN stays NaN
    row_map<HAS_PACKS>(out + row, inp + row, inp + row, C,
                       [&](float x, float) { return x / length; });
    if (threadIdx.x == 0) {
        norm[blockIdx.x] = length;
    }
}

// Launch: as the forward. A clamped norm is a constant: no part of dout is along a radius that does
// not count.
template <typename T, bool HAS_PACKS>
static __global__ void l2norm_bwd_kernel1(T *dinp, const T *dout, const T *out, const float *norm,
                                          int C) {
    const size_t row = (size_t)blockIdx.x * C;
    const float length = norm[blockIdx.x];
    float sum = 0;
    row_each<HAS_PACKS>(dout + row, out + row, C,
                        [&](float dy, float y) { sum = fmaf(dy, y, sum); });
    sum = block_sum(sum);
    const float along = length == EPS ? 0.0f : sum;
    row_map<HAS_PACKS>(dinp + row, dout + row, out + row, C,
                       [&](float dy, float y) { return fmaf(-along, y, dy) / length; });
}

template <typename T>
static void launch_fwd(Device *dev, T *out, float *norm, const T *inp, int N, int C) {
    if (row_has_packs<T>(C, out, inp, inp)) {
        LAUNCH((l2norm_fwd_kernel1<T, true>), N, row_block(C / Pack<T>::N), 0, device_stream(dev),
               out, norm, inp, C);
    } else {
        LAUNCH((l2norm_fwd_kernel1<T, false>), N, row_block(C), 0, device_stream(dev), out, norm,
               inp, C);
    }
}

template <typename T>
static void launch_bwd(Device *dev, T *dinp, const T *dout, const T *out, const float *norm, int N,
                       int C) {
    if (row_has_packs<T>(C, dinp, dout, out)) {
        LAUNCH((l2norm_bwd_kernel1<T, true>), N, row_block(C / Pack<T>::N), 0, device_stream(dev),
               dinp, dout, out, norm, C);
    } else {
        LAUNCH((l2norm_bwd_kernel1<T, false>), N, row_block(C), 0, device_stream(dev), dinp, dout,
               out, norm, C);
    }
}

CUDA_OP(l2norm_fwd)(Device *dev, DType t, void *out, float *norm, const void *inp, int N, int C) {
    CHECK_POINTERS(l2norm_fwd, out, norm, inp);
    FOR_DTYPE(t, T, launch_fwd(dev, (T *)out, norm, (const T *)inp, N, C));
}

CUDA_OP(l2norm_bwd)(Device *dev, DType t, void *dinp, const void *dout, const void *out,
                    const float *norm, int N, int C) {
    CHECK_POINTERS(l2norm_bwd, dinp, dout, out, norm);
    FOR_DTYPE(t, T, launch_bwd(dev, (T *)dinp, (const T *)dout, (const T *)out, norm, N, C));
}
