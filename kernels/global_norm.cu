// global_norm: sqrt(sum grad^2) and the clip factor on CUDA; see global_norm.h.
//
// One block per PIECE elements sums in f32, 16 bytes at a time; one last block adds the sums of the
// pieces in f64: each thread a run of neighbours, each lane of the first warp a run of those, then
// the first thread, ascending. Nothing depends on timing; the host does not wait for the result.
// A last piece that is not whole takes the same path element by element.
//
//   version  idea                                 shape  time                  % of peak bandwidth
//   pieces1  a block per piece, 16 bytes each     -      not yet run on a GPU  -
//   kernel1  one block over the pieces            -      not yet run on a GPU  -
#include "global_norm.h"

#include "device_cuda.cuh"
#include "rows.cuh"

static const int PIECE = 4096; // elements
static const int BLOCK = 256;
static const int LAST_BLOCK = 1024; // threads that add the pieces
static const int PACKS = PIECE / 4 / BLOCK; // of a thread

// Launch: one block of BLOCK threads per piece. 128 bytes of shared memory (the sum).
static __global__ void global_norm_pieces1(float *sums, const float *grad, size_t n,
                                           bool has_packs) {
    const size_t at = (size_t)blockIdx.x * PIECE;
    float sum = 0;
    if (has_packs && n - at >= PIECE) {
        Pack<float> x[PACKS]; // all loads before the first use
        UNROLL
        for (int k = 0; k < PACKS; k++) {
            x[k] = pack_load(grad + at + (k * BLOCK + threadIdx.x) * 4);
        }
        UNROLL
        for (int k = 0; k < PACKS * 4; k++) {
            sum = fmaf(x[k / 4].at[k % 4], x[k / 4].at[k % 4], sum);
        }
    } else {
        const int count = n - at < PIECE ? (int)(n - at) : PIECE;
        ROW_STRIDE(i, count) { sum = fmaf(grad[at + i], grad[at + i], sum); }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
    }
}

// Launch: one block of LAST_BLOCK threads. 8448 bytes of shared memory.
static __global__ void global_norm_kernel1(float *norm, const float *sums, int pieces,
                                           float max_norm) {
    SMEM_STATIC(runs, double, [LAST_BLOCK]);
    SMEM_STATIC(lanes, double, [WARP]);
    const int run = (pieces + LAST_BLOCK - 1) / LAST_BLOCK, first = threadIdx.x * run;
    double sum = 0;
    for (int i = first; i < first + run && i < pieces; i++) {
        sum += (double)sums[i];
    }
    runs[threadIdx.x] = sum;
    __syncthreads(); // the first warp reads all runs
    if (threadIdx.x >= WARP) {
        return; // whole warps; only __syncwarp follows
    }
    double total = 0;
    for (int i = 0; i < LAST_BLOCK / WARP; i++) {
        total += runs[threadIdx.x * (LAST_BLOCK / WARP) + i];
    }
    lanes[threadIdx.x] = total;
    __syncwarp(); // the first lane reads all lanes' sums
    if (threadIdx.x == 0) {
        total = 0;
        for (int i = 0; i < WARP; i++) {
            total += lanes[i];
        }
        const float length = (float)sqrt(total);
        const double factor = max_norm <= 0 ? 1 : (double)max_norm / ((double)length + 1e-6);
        norm[0] = length;
        norm[1] = !isfinite(length) ? NAN : factor < 1 ? (float)factor : 1.0f;
    }
}

CUDA_OP(global_norm)(Device *dev, float *norm, const float *grad, size_t n, float max_norm) {
    CHECK_POINTERS(global_norm, norm, grad);
    const size_t pieces = (n + PIECE - 1) / PIECE;
    CHECK(n >= 1 && pieces <= INT32_MAX - LAST_BLOCK, "n=%zu", n);
    float *sums = (float *)device_scratch(dev, pieces * sizeof(float));
    cudaStream_t stream = device_stream(dev);
    LAUNCH(global_norm_pieces1, (unsigned)pieces, BLOCK, 0, stream, sums, grad, n,
           is_packable(grad));
    LAUNCH(global_norm_kernel1, 1, LAST_BLOCK, 0, stream, norm, sums, (int)pieces, max_norm);
}
