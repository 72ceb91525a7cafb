// rmsnorm: root-mean-square normalisation on CUDA; see rmsnorm.h.
//
// The gradient of the weight comes before that of the input, which may lie on dout. It is one
// thread per column and walks down the rows, so that the chain is the contract's.
//
//   version      idea                   shape  time                  % of peak bandwidth
//   fwd_kernel1  one block per row      -      not yet run on a GPU  -
//   bwd_kernel1  one block per row      -      not yet run on a GPU  -
//   weight1      one thread per column  -      not yet run on a GPU  -
#include "rmsnorm.h"

#include "rows.cuh"

static const int COLUMNS = 128; // of a block of the weight's gradient

// Launch: N blocks of row_block(C) threads. 128 bytes of shared memory (the sum).
template <typename T>
static __global__ void rmsnorm_fwd_kernel1(T *out, float *rstd, const T *inp, const T *weight,
                                           int C, float eps) {
    const size_t row = (size_t)blockIdx.x * C;
    float sum = 0;
    ROW_STRIDE(c, C) {
        const float x = to_float(inp[row + c]);
        sum = fmaf(x, x, sum);
    }
    const float r = 1.0f / sqrtf(block_sum(sum) / (float)C + eps);
    ROW_STRIDE(c, C) {
        const float normal = to_float(from_float<T>(to_float(inp[row + c]) * r));
        out[row + c] = from_float<T>(normal * to_float(weight[c]));
    }
    if (threadIdx.x == 0) {
        rstd[blockIdx.x] = r;
    }
}

// Launch: as the forward.
template <typename T>
static __global__ void rmsnorm_bwd_kernel1(T *dinp, const T *dout, const T *inp, const T *weight,
                                           const float *rstd, int C) {
    const size_t row = (size_t)blockIdx.x * C;
    const float r = rstd[blockIdx.x];
    float sum = 0;
    ROW_STRIDE(c, C) {
        const float g = to_float(dout[row + c]) * to_float(weight[c]);
        sum = fmaf(g, to_float(inp[row + c]) * r, sum);
    }
    const float mean = block_sum(sum) / (float)C;
    ROW_STRIDE(c, C) {
        const float g = to_float(dout[row + c]) * to_float(weight[c]);
        dinp[row + c] = from_float<T>(r * fmaf(-(to_float(inp[row + c]) * r), mean, g));
    }
}

// Launch: C / COLUMNS blocks of COLUMNS threads. No shared memory.
template <typename T>
static __global__ void rmsnorm_bwd_weight1(float *dweight, const T *dout, const T *inp,
                                           const float *rstd, int N, int C) {
    const int c = blockIdx.x * COLUMNS + threadIdx.x;
    if (c < C) {
        float sum = dweight[c];
        for (int n = 0; n < N; n++) {
            const size_t at = (size_t)n * C + c;
            sum = fmaf(to_float(dout[at]), to_float(inp[at]) * rstd[n], sum);
        }
        dweight[c] = sum;
    }
}

CUDA_OP(rmsnorm_fwd)(Device *dev, DType t, void *out, float *rstd, const void *inp,
                     const void *weight, int N, int C, float eps) {
    FOR_DTYPE(t, T, LAUNCH((rmsnorm_fwd_kernel1<T>), N, row_block(C), 0, device_stream(dev),
                           (T *)out, rstd, (const T *)inp, (const T *)weight, C, eps));
}

CUDA_OP(rmsnorm_bwd)(Device *dev, DType t, void *dinp, float *dweight, const void *dout,
                     const void *inp, const void *weight, const float *rstd, int N, int C) {
    const unsigned blocks = (C + COLUMNS - 1) / COLUMNS;
    cudaStream_t stream = device_stream(dev);
    if (dweight) {
        FOR_DTYPE(t, T, LAUNCH((rmsnorm_bwd_weight1<T>), blocks, COLUMNS, 0, stream, dweight,
                               (const T *)dout, (const T *)inp, rstd, N, C));
    }
    FOR_DTYPE(t, T, LAUNCH((rmsnorm_bwd_kernel1<T>), N, row_block(C), 0, stream, (T *)dinp,
                           (const T *)dout, (const T *)inp, (const T *)weight, rstd, C));
}
