// rmsnorm: root-mean-square normalisation on CUDA; see rmsnorm.h.
//
// The gradient of the weight comes before that of the input, which may lie on dout. It is one
// thread per column and walks down the rows, so that the chain is the contract's.
//
//   version      idea                   shape  time                  % of peak bandwidth
//   fwd_kernel1  one block per row      -      not yet run on a GPU  -
//   fwd_kernel2  the same, 16 bytes     -      not yet run on a GPU  -
//   bwd_kernel1  one block per row      -      not yet run on a GPU  -
//   bwd_kernel2  the same, 16 bytes     -      not yet run on a GPU  -
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

// ---- 16 bytes at a time; C counts packs, and width elements ----
// Launch: N blocks of row_block(C) threads. 128 bytes of shared memory (the sum).
template <typename T>
static __global__ void rmsnorm_fwd_kernel2(T *out, float *rstd, const T *inp, const T *weight,
                                           int C, int width, float eps) {
    const int N = Pack<T>::N;
    const size_t row = (size_t)blockIdx.x * width;
    float sum = 0;
    ROW_STRIDE(c, C) {
        const Pack<T> x = pack_load(inp + row + (size_t)c * N);
        for (int k = 0; k < N; k++) {
            sum = fmaf(x.at[k], x.at[k], sum);
        }
    }
    const float r = 1.0f / sqrtf(block_sum(sum) / (float)width + eps);
    ROW_STRIDE(c, C) {
        Pack<T> x = pack_load(inp + row + (size_t)c * N);
        const Pack<T> w = pack_load(weight + (size_t)c * N);
        for (int k = 0; k < N; k++) {
            x.at[k] = to_float(from_float<T>(x.at[k] * r)) * w.at[k];
        }
        pack_store(out + row + (size_t)c * N, x);
    }
    if (threadIdx.x == 0) {
        rstd[blockIdx.x] = r;
    }
}

// Launch: as the forward.
template <typename T>
static __global__ void rmsnorm_bwd_kernel2(T *dinp, const T *dout, const T *inp, const T *weight,
                                           const float *rstd, int C, int width) {
    const int N = Pack<T>::N;
    const size_t row = (size_t)blockIdx.x * width;
    const float r = rstd[blockIdx.x];
    float sum = 0, mean = 0;
    for (int pass = 0; pass < 2; pass++) { // the mean, then the output
        ROW_STRIDE(c, C) {
            Pack<T> dy = pack_load(dout + row + (size_t)c * N);
            const Pack<T> x = pack_load(inp + row + (size_t)c * N);
            const Pack<T> w = pack_load(weight + (size_t)c * N);
            for (int k = 0; k < N; k++) {
                const float g = dy.at[k] * w.at[k], normal = x.at[k] * r;
                sum = fmaf(g, normal, sum);
                dy.at[k] = r * fmaf(-normal, mean, g);
            }
            if (pass == 1) {
                pack_store(dinp + row + (size_t)c * N, dy);
            }
        }
        if (pass == 0) {
            mean = block_sum(sum) / (float)width;
        }
    }
}

// ---- the weight's gradient ----
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

// ---- launchers ----
// Whether rows of C elements can be taken 16 bytes at a time.
template <typename T> static bool has_packs(const void *a, const void *b, const void *c,
                                            const void *d, int C) {
    return C % Pack<T>::N == 0 && is_packable(a) && is_packable(b) && is_packable(c) &&
           is_packable(d);
}

template <typename T>
static void launch_fwd(Device *dev, T *out, float *rstd, const T *inp, const T *weight, int N,
                       int C, float eps) {
    const int packs = C / Pack<T>::N;
    if (has_packs<T>(out, inp, weight, weight, C)) {
        LAUNCH((rmsnorm_fwd_kernel2<T>), N, row_block(packs), 0, device_stream(dev), out, rstd,
               inp, weight, packs, C, eps);
    } else {
        LAUNCH((rmsnorm_fwd_kernel1<T>), N, row_block(C), 0, device_stream(dev), out, rstd, inp,
               weight, C, eps);
    }
}

template <typename T>
static void launch_bwd(Device *dev, T *dinp, float *dweight, const T *dout, const T *inp,
                       const T *weight, const float *rstd, int N, int C) {
    const int packs = C / Pack<T>::N;
    cudaStream_t stream = device_stream(dev);
    if (dweight) { // first, for dinp may be dout
        LAUNCH((rmsnorm_bwd_weight1<T>), (C + COLUMNS - 1) / COLUMNS, COLUMNS, 0, stream, dweight,
               dout, inp, rstd, N, C);
    }
    if (has_packs<T>(dinp, dout, inp, weight, C)) {
        LAUNCH((rmsnorm_bwd_kernel2<T>), N, row_block(packs), 0, stream, dinp, dout, inp, weight,
               rstd, packs, C);
    } else {
        LAUNCH((rmsnorm_bwd_kernel1<T>), N, row_block(C), 0, stream, dinp, dout, inp, weight,
               rstd, C);
    }
}

CUDA_OP(rmsnorm_fwd)(Device *dev, DType t, void *out, float *rstd, const void *inp,
                     const void *weight, int N, int C, float eps) {
    FOR_DTYPE(t, T, launch_fwd(dev, (T *)out, rstd, (const T *)inp, (const T *)weight, N, C, eps));
}

CUDA_OP(rmsnorm_bwd)(Device *dev, DType t, void *dinp, float *dweight, const void *dout,
                     const void *inp, const void *weight, const float *rstd, int N, int C) {
    FOR_DTYPE(t, T, launch_bwd(dev, (T *)dinp, dweight, (const T *)dout, (const T *)inp,
                               (const T *)weight, rstd, N, C));
}
