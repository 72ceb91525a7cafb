// infonce: symmetric contrastive loss and its gradient on CUDA; see infonce.h.
//
//   dS = (softmax over rows + softmax over columns - 2 I) / (2B)
//   da = exp(log_scale) dS b      db = exp(log_scale) dS^T a      dlog_scale += sum dS * S
//
// As on the CPU the three products are matmul's, in f32 whatever the embeddings are. The scale is
// read on the device, so that the host need not wait for a learned one.
//
//   version  idea                                 shape  time                  % of peak
//   kernel1  a block per row, or per 32 columns   -      not yet run on a GPU  -
#include "infonce.h"

#include "cast.h"
#include "device_cuda.cuh"
#include "matmul.h"
#include "rows.cuh"
#include "softmax_row.cuh"

static const int BLOCK = 256;
static const int COLUMN_WARPS = 8;

// x *= exp(*log_scale). Launch: any grid, BLOCK threads.
static __global__ void infonce_scale1(float *x, const float *log_scale, size_t n) {
    const float scale = exp_f32(*log_scale);
    GRID_STRIDE(i, n) { x[i] *= scale; }
}

// Launch: B blocks of softmax_block(B) threads; 384 bytes of shared memory.
template <int EACH>
static __global__ void infonce_row_lse1(float *lse, const float *scores, int B) {
    const SoftmaxRow all = softmax_row<float, EACH>(scores + (size_t)blockIdx.x * B, B);
    if (threadIdx.x == 0) {
        lse[blockIdx.x] = all.lse;
    }
}

// 32 columns to a block, a lane each: a warp reads neighbours. The warps share the rows; the first
// joins what they found, in order. Launch: ceil(B/32) blocks of COLUMN_WARPS warps.
static __global__ void infonce_column_lse1(float *lse, const float *scores, int B) {
    SMEM_STATIC(part, float, [COLUMN_WARPS][WARP]);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int j = blockIdx.x * WARP + lane, i = j < B ? j : B - 1; // idle lanes do the last again
    float max = -INFINITY, sum = 0;
    for (int n = warp; n < B; n += COLUMN_WARPS) {
        const float x = scores[(size_t)n * B + i];
        max = x > max ? x : max;
    }
    part[warp][lane] = max;
    __syncthreads(); // all warps' maxima are there
    for (int w = 0; w < COLUMN_WARPS; w++) {
        max = part[w][lane] > max ? part[w][lane] : max;
    }
    for (int n = warp; n < B; n += COLUMN_WARPS) {
        sum += exp_below(scores[(size_t)n * B + i], max);
    }
    __syncthreads(); // all have read the maxima
    part[warp][lane] = sum;
    __syncthreads(); // all warps' sums are there
    if (warp == 0 && j < B) {
        float total = 0;
        for (int w = 0; w < COLUMN_WARPS; w++) {
            total += part[w][lane];
        }
        lse[j] = (float)((double)(max == -INFINITY ? 0.0f : max) + log_wide(total));
    }
}

// loss[side] = mean_i lse[side,i] - S[i,i]. Launch: 2 blocks of row_block(B) threads.
static __global__ void infonce_loss1(float *loss, const float *lse, const float *scores, int B) {
    float sum = 0;
    ROW_STRIDE(i, B) { sum += lse[blockIdx.x * B + i] - scores[(size_t)i * B + i]; }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        loss[blockIdx.x] = sum / (float)B;
    }
}

// Replaces row i of S by dS; sums[i] = sum_j dS[i,j] S[i,j]. Launch: B blocks of row_block(B).
static __global__ void infonce_dscores1(float *sums, float *scores, const float *lse, int B) {
    const int i = blockIdx.x;
    float *row = scores + (size_t)i * B;
    const float half = 0.5f / (float)B;
    float sum = 0;
    ROW_STRIDE(j, B) {
        const float s = row[j], p = exp_f32(s - lse[i]) + exp_f32(s - lse[B + j]);
        const float d = (j == i ? p - 2.0f : p) * half;
        sum = fmaf(d, s, sum);
        row[j] = d;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        sums[i] = sum;
    }
}

// *total += sum_i sums[i]. Launch: one block of row_block(B) threads.
static __global__ void infonce_total1(float *total, const float *sums, int B) {
    float sum = 0;
    ROW_STRIDE(i, B) { sum += sums[i]; }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        *total += sum;
    }
}

// n elements as f32: where they are, or widened into buffer.
static const float *widened(Device *dev, float *buffer, DType t, const void *x, size_t n) {
    if (t == DT_F32) {
        return (const float *)x;
    }
    CUDA_NAME(cast)(dev, DT_F32, buffer, t, x, n);
    return buffer;
}

CUDA_OP(infonce_fwd)(Device *dev, DType t, float *loss, float *scores, float *lse, const void *a,
                     const void *b, const float *log_scale, int B, int E) {
    CHECK_POINTERS(infonce_fwd, loss, scores, lse, a, b, log_scale);
    CHECK(B >= 1 && E >= 1, "B=%d E=%d", B, E);
    const size_t n = (size_t)B * E, pairs = (size_t)B * B;
    float *wide = (float *)device_scratch(dev, 2 * n * sizeof(float));
    const float *fa = widened(dev, wide, t, a, n), *fb = widened(dev, wide + n, t, b, n);
    CUDA_NAME(matmul_fwd)(dev, DT_F32, scores, fa, fb, NULL, NULL, B, B, E, false, NULL);
    cudaStream_t stream = device_stream(dev);
    LAUNCH(infonce_scale1, grid_for(pairs, BLOCK), BLOCK, 0, stream, scores, log_scale, pairs);
    if (is_packable(scores) && B % 4 == 0) {
        LAUNCH((infonce_row_lse1<4>), B, softmax_block(B, 4), 0, stream, lse, scores, B);
    } else {
        LAUNCH((infonce_row_lse1<1>), B, softmax_block(B, 1), 0, stream, lse, scores, B);
    }
    LAUNCH(infonce_column_lse1, (B + WARP - 1) / WARP, COLUMN_WARPS * WARP, 0, stream, lse + B,
           scores, B);
    LAUNCH(infonce_loss1, 2, row_block(B), 0, stream, loss, lse, scores, B);
}

extern "C" size_t CUDA_NAME(infonce_bwd_scratch)(const Device *dev, DType t, int B, int E) {
    (void)dev, (void)t;
    return ((size_t)B + 4 * (size_t)B * E) * sizeof(float);
}

CUDA_OP(infonce_bwd)(Device *dev, DType t, void *da, void *db, float *dlog_scale, float *scores,
                     const float *lse, const void *a, const void *b, const float *log_scale, int B,
                     int E) {
    CHECK_POINTERS(infonce_bwd, da, db, scores, lse, a, b, log_scale);
    CHECK(B >= 1 && E >= 1, "B=%d E=%d", B, E);
    const size_t n = (size_t)B * E;
    float *sums = (float *)device_scratch(dev, CUDA_NAME(infonce_bwd_scratch)(dev, t, B, E));
    float *wide = sums + B;
    cudaStream_t stream = device_stream(dev);
    LAUNCH(infonce_dscores1, B, row_block(B), 0, stream, sums, scores, lse, B);
    if (dlog_scale) {
        LAUNCH(infonce_total1, 1, row_block(B), 0, stream, dlog_scale, sums, B);
    }
    const float *fa = widened(dev, wide, t, a, n), *fb = widened(dev, wide + n, t, b, n);
    float *fda = t == DT_F32 ? (float *)da : wide + 2 * n;
    float *fdb = t == DT_F32 ? (float *)db : wide + 3 * n;
    CUDA_NAME(matmul_bwd_input)(dev, DT_F32, fda, scores, fb, NULL, B, B, E, false, NULL);
    device_zero(dev, fdb, n * sizeof *fdb); // this product adds
    CUDA_NAME(matmul_bwd_weight)(dev, DT_F32, fdb, NULL, scores, fa, B, B, E);
    LAUNCH(infonce_scale1, grid_for(n, BLOCK), BLOCK, 0, stream, fda, log_scale, n);
    LAUNCH(infonce_scale1, grid_for(n, BLOCK), BLOCK, 0, stream, fdb, log_scale, n);
    if (t != DT_F32) {
        CUDA_NAME(cast)(dev, t, da, DT_F32, fda, n);
        CUDA_NAME(cast)(dev, t, db, DT_F32, fdb, n);
    }
}
