// global_norm: sqrt(sum grad^2) and the clip factor on CUDA; see global_norm.h.
//
// One block per PIECE elements sums in f32; one last block adds the sums of the pieces in f64, each
// thread a run of neighbours, then the first thread the runs, ascending. Nothing depends on timing,
// and the host does not wait for the result.
//
//   version  idea                 shape  time                  % of peak bandwidth
//   kernel1  pieces, then a block  -     not yet run on a GPU  -
#include "global_norm.h"

#include "device_cuda.cuh"
#include "rows.cuh"

static const int PIECE = 4096; // elements
static const int BLOCK = 256;

// Launch: one block of BLOCK threads per piece. 128 bytes of shared memory (the sum).
static __global__ void global_norm_pieces1(float *sums, const float *grad, size_t n) {
    const size_t at = (size_t)blockIdx.x * PIECE;
    const int count = n - at < PIECE ? (int)(n - at) : PIECE;
    float sum = 0;
    ROW_STRIDE(i, count) { sum = fmaf(grad[at + i], grad[at + i], sum); }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
    }
}

// Launch: one block of BLOCK threads. 2048 bytes of shared memory.
static __global__ void global_norm_kernel1(float *norm, const float *sums, int pieces,
                                           float max_norm) {
    SMEM_STATIC(runs, double, [BLOCK]);
    const int run = (pieces + BLOCK - 1) / BLOCK, first = threadIdx.x * run;
    double sum = 0;
    for (int i = first; i < first + run && i < pieces; i++) {
        sum += (double)sums[i];
    }
    runs[threadIdx.x] = sum;
    __syncthreads(); // the first thread reads all runs
    if (threadIdx.x == 0) {
        double total = 0;
        for (int i = 0; i < BLOCK; i++) {
            total += runs[i];
        }
        const float length = (float)sqrt(total);
        const double factor = max_norm <= 0 ? 1 : (double)max_norm / ((double)length + 1e-6);
        norm[0] = length;
        norm[1] = !isfinite(length) ? NAN : factor < 1 ? (float)factor : 1.0f;
    }
}

CUDA_OP(global_norm)(Device *dev, float *norm, const float *grad, size_t n, float max_norm) {
    const size_t pieces = (n + PIECE - 1) / PIECE;
    CHECK(n >= 1 && pieces <= INT32_MAX - BLOCK, "n=%zu", n);
    float *sums = (float *)device_scratch(dev, pieces * sizeof(float));
    cudaStream_t stream = device_stream(dev);
    LAUNCH(global_norm_pieces1, (unsigned)pieces, BLOCK, 0, stream, sums, grad, n);
    LAUNCH(global_norm_kernel1, 1, BLOCK, 0, stream, norm, sums, (int)pieces, max_norm);
}
