// layernorm: layer normalisation on a GPU; see layernorm.h.
//
// A row belongs to one warp or to one block, whatever the batch: its sums are taken by the threads'
// own chains over c (strided), then by butterflies. The variance is that of the centred values, in a
// second pass. The backward of the input needs two sums of a row first:
//   dinp = rstd (g - mean_c(g) - x^ mean_c(g x^)),  g = dout * weight,  x^ = (inp - mean) rstd
// The parameters' gradients are one chain down n per column, as the contract says: a column to a
// thread, neighbouring columns to neighbouring threads. They run first, for dinp may lie on dout.
//
//   version  idea                                      shape     time            % of peak
//   fwd 1    a warp per row, the row read three times  -         not yet run on a GPU
//   fwd 2    a block per row, held in shared memory    -         not yet run on a GPU
//   bwd 1    a warp per row; a thread per column       -         not yet run on a GPU
#include "layernorm.h"

#include "cuda_common.cuh"

#define THREADS 256
#define ROWS (THREADS / WARP) // rows of a block with a warp each
#define LONG_ROW 1024         // elements from which a row gets a block of its own
#define MOST_ROW 12288        // elements of a row that fit into 48 KB of shared memory

// ---- forward ----
// Version 1. Launch: ceil(N/8) blocks of 256 threads, no shared memory.
template <typename T>
static __global__ void layernorm_fwd_kernel1(T *out, float *mean, float *rstd, const T *inp,
                                             const T *weight, const T *bias, int N, int C,
                                             float eps) {
    const int lane = threadIdx.x % WARP, n = blockIdx.x * ROWS + threadIdx.x / WARP;
    if (n >= N) {
        return; // whole warps; no barrier follows
    }
    inp += (size_t)n * C, out += (size_t)n * C;
    float sum = 0, squares = 0;
    for (int c = lane; c < C; c += WARP) {
        sum += to_float(inp[c]);
    }
    const float m = warp_sum(sum) / (float)C;
    for (int c = lane; c < C; c += WARP) {
        const float centred = to_float(inp[c]) - m;
        squares = fmaf(centred, centred, squares);
    }
    const float r = 1.0f / sqrtf(warp_sum(squares) / (float)C + eps);
    for (int c = lane; c < C; c += WARP) {
        const float normal = (to_float(inp[c]) - m) * r;
        out[c] = from_float<T>(fmaf(normal, to_float(weight[c]), to_float(bias[c])));
    }
    if (lane == 0) {
        mean[n] = m;
        rstd[n] = r;
    }
}

// Version 2, C <= MOST_ROW. Launch: N blocks of 256 threads, 4 C bytes of shared memory: the row,
// widened. Each thread reads back only what it wrote, so there is no barrier but those of the sums.
template <typename T>
static __global__ void layernorm_fwd_kernel2(T *out, float *mean, float *rstd, const T *inp,
                                             const T *weight, const T *bias, int C, float eps) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, row, float, C, 16);
    const int n = blockIdx.x;
    inp += (size_t)n * C, out += (size_t)n * C;
    float sum = 0, squares = 0;
    for (int c = threadIdx.x; c < C; c += THREADS) {
        row[c] = to_float(inp[c]);
        sum += row[c];
    }
    const float m = block_sum(sum) / (float)C;
    for (int c = threadIdx.x; c < C; c += THREADS) {
        const float centred = row[c] - m;
        squares = fmaf(centred, centred, squares);
    }
    const float r = 1.0f / sqrtf(block_sum(squares) / (float)C + eps);
    for (int c = threadIdx.x; c < C; c += THREADS) {
        out[c] = from_float<T>(fmaf((row[c] - m) * r, to_float(weight[c]), to_float(bias[c])));
    }
    if (threadIdx.x == 0) {
        mean[n] = m;
        rstd[n] = r;
    }
}

// ---- backward ----
// Launch: ceil(C/256) blocks of 256 threads, no shared memory. dweight or dbias may be null.
template <typename T>
static __global__ void layernorm_bwd_params_kernel1(float *dweight, float *dbias, const T *dout,
                                                    const T *inp, const float *mean,
                                                    const float *rstd, int N, int C) {
    const int c = blockIdx.x * THREADS + threadIdx.x;
    if (c >= C) {
        return;
    }
    float dw = dweight ? dweight[c] : 0, db = dbias ? dbias[c] : 0;
    for (int n = 0; n < N; n++) {
        const size_t at = (size_t)n * C + c;
        const float dy = to_float(dout[at]);
        dw = fmaf(dy, (to_float(inp[at]) - mean[n]) * rstd[n], dw);
        db += dy;
    }
    if (dweight) {
        dweight[c] = dw;
    }
    if (dbias) {
        dbias[c] = db;
    }
}

// Launch: ceil(N/8) blocks of 256 threads, no shared memory. An element of dinp is written by the
// thread that read this element of dout: they may be one tensor.
template <typename T>
static __global__ void layernorm_bwd_kernel1(T *dinp, const T *dout, const T *inp, const T *weight,
                                             const float *mean, const float *rstd, int N, int C) {
    const int lane = threadIdx.x % WARP, n = blockIdx.x * ROWS + threadIdx.x / WARP;
    if (n >= N) {
        return; // whole warps; no barrier follows
    }
    const float m = mean[n], r = rstd[n];
    inp += (size_t)n * C, dout += (size_t)n * C, dinp += (size_t)n * C;
    float g_sum = 0, gx_sum = 0;
    for (int c = lane; c < C; c += WARP) {
        const float g = to_float(dout[c]) * to_float(weight[c]);
        g_sum += g;
        gx_sum = fmaf(g, (to_float(inp[c]) - m) * r, gx_sum);
    }
    const float g_mean = warp_sum(g_sum) / (float)C, gx_mean = warp_sum(gx_sum) / (float)C;
    for (int c = lane; c < C; c += WARP) {
        const float g = to_float(dout[c]) * to_float(weight[c]);
        const float normal = (to_float(inp[c]) - m) * r;
        dinp[c] = from_float<T>(r * fmaf(-normal, gx_mean, g - g_mean));
    }
}

// ---- launchers ----
template <typename T>
static void launch_fwd(Device *dev, T *out, float *mean, float *rstd, const T *inp,
                       const T *weight, const T *bias, int N, int C, float eps) {
    if (C < LONG_ROW || C > MOST_ROW) {
        LAUNCH((layernorm_fwd_kernel1<T>), (N + ROWS - 1) / ROWS, THREADS, 0, device_stream(dev),
               out, mean, rstd, inp, weight, bias, N, C, eps);
    } else {
        LAUNCH((layernorm_fwd_kernel2<T>), N, THREADS, (size_t)C * 4, device_stream(dev), out,
               mean, rstd, inp, weight, bias, C, eps);
    }
}

template <typename T>
static void launch_bwd(Device *dev, T *dinp, float *dweight, float *dbias, const T *dout,
                       const T *inp, const T *weight, const float *mean, const float *rstd, int N,
                       int C) {
    const cudaStream_t stream = device_stream(dev);
    if (dweight || dbias) {
        LAUNCH((layernorm_bwd_params_kernel1<T>), (C + THREADS - 1) / THREADS, THREADS, 0, stream,
               dweight, dbias, dout, inp, mean, rstd, N, C);
    }
    LAUNCH((layernorm_bwd_kernel1<T>), (N + ROWS - 1) / ROWS, THREADS, 0, stream, dinp, dout, inp,
           weight, mean, rstd, N, C);
}

CUDA_OP(layernorm_fwd)(Device *dev, DType t, void *out, float *mean, float *rstd, const void *inp,
                       const void *weight, const void *bias, int N, int C, float eps) {
    FOR_DTYPE(t, T, launch_fwd(dev, (T *)out, mean, rstd, (const T *)inp, (const T *)weight,
                               (const T *)bias, N, C, eps));
}

CUDA_OP(layernorm_bwd)(Device *dev, DType t, void *dinp, float *dweight, float *dbias,
                       const void *dout, const void *inp, const void *weight, const float *mean,
                       const float *rstd, int N, int C) {
    FOR_DTYPE(t, T, launch_bwd(dev, (T *)dinp, dweight, dbias, (const T *)dout, (const T *)inp,
                               (const T *)weight, mean, rstd, N, C));
}
