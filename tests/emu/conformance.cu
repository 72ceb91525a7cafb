// conformance: one small kernel per group of wrappers of ptx.cuh and ptx_hopper.cuh, on small
// integers, so that results are exact. The same source runs in the emulator and on a GPU: both must
// give what tests/test_conformance.c computes in plain loops.
#include "kernels/ptx_hopper.cuh"

// out (16,8) = a (16,16) b (8,16)^T by ldmatrix and mma, through cp.async. b_is_transposed: b is
// (16,8) and read by ldmatrix_x2_trans. One warp.
template <typename T>
static __global__ void mma_kernel1(float *out, const T *a, const T *b, int b_is_transposed) {
    SMEM_STATIC(a_tile, uint4, [32]); // 16 rows of 2 pieces
    SMEM_STATIC(b_tile, uint4, [16]); // 8 rows of 2 pieces, or 16 rows of one
    const int lane = threadIdx.x;
    cp_async16(smem_u32(&a_tile[lane]), a + 8 * lane);
    cp_async_commit();
    if (lane < 16) {
        cp_async16(smem_u32(&b_tile[lane]), b + 8 * lane);
    }
    cp_async_commit();
    cp_async_wait<0>();
    __syncwarp();
    uint32_t a_part[4], b_part[2];
    float acc[4] = {0, 0, 0, 0};
    ldmatrix_x4(a_part, smem_u32(&a_tile[lane % 16 * 2 + lane / 16]));
    if (b_is_transposed) {
        ldmatrix_x2_trans(b_part, smem_u32(&b_tile[lane % 16]));
    } else {
        ldmatrix_x2(b_part, smem_u32(&b_tile[lane % 8 * 2 + lane / 8 % 2]));
    }
    if constexpr (std::is_same<T, bf16>::value) {
        mma_m16n8k16_bf16(acc, a_part, b_part);
    } else {
        mma_m16n8k16_f16(acc, a_part, b_part);
    }
    for (int k = 0; k < 4; k++) {
        out[(lane / 4 + k / 2 * 8) * 8 + lane % 4 * 2 + k % 2] = acc[k];
    }
}

// out (32 words): the first `bytes` bytes of each 16 of inp, zeros behind. Eight threads.
static __global__ void cp_async_kernel1(uint4 *out, const uint4 *inp, int bytes) {
    SMEM_STATIC(row, uint4, [8]);
    cp_async16(smem_u32(&row[threadIdx.x]), inp + threadIdx.x, bytes);
    cp_async_commit();
    cp_async_wait<0>();
    out[threadIdx.x] = row[threadIdx.x];
}

// out (64,64) = a (rows,K) b (rows,K)^T, zeros beyond rows and K; K <= 64 a multiple of 8. Warp 4
// issues the copies, warps 0 to 3 multiply. Shared: two tiles of 8192 bytes and a barrier.
static __global__ void wgmma_kernel1(float *out, const __grid_constant__ TensorMap a_map,
                                     const __grid_constant__ TensorMap b_map) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, a, bf16, 64 * 64, 1024);
    SMEM_TAKE(carver, b, bf16, 64 * 64, 1024);
    SMEM_TAKE(carver, full, uint64_t, 1, 8);
    const uint32_t bar = smem_u32(full);
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        mbar_init_fence();
    }
    __syncthreads(); // the barrier is seen by all
    if (threadIdx.x == 128) {
        mbar_arrive_expect(bar, 16384);
        tma_load(smem_u32(a), &a_map, 0, 0, bar);
        tma_load(smem_u32(b), &b_map, 0, 0, bar);
    }
    if (threadIdx.x < 128) {
        float acc[32];
        for (int n = 0; n < 32; n++) {
            acc[n] = 0;
        }
        mbar_wait(bar, 0); // both tiles are there
        wgmma_fence();
        for (int k = 0; k < 4; k++) { // 16 elements, 32 bytes, 2 units of a descriptor
            wgmma_m64n64k16_bf16(acc, wgmma_tile(smem_u32(a)) + 2 * k,
                                 wgmma_tile(smem_u32(b)) + 2 * k);
        }
        wgmma_commit();
        wgmma_wait<0>();
        const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
        for (int n = 0; n < 32; n++) {
            out[(row + n / 2 % 2 * 8) * 64 + n / 4 * 8 + threadIdx.x % 4 * 2 + n % 2] = acc[n];
        }
    }
}

// ---- launchers ----
CUDA_OP(conformance_mma)(Device *dev, DType t, float *out, const void *a, const void *b,
                         int b_is_transposed) {
    if (t == DT_BF16) {
        LAUNCH((mma_kernel1<bf16>), 1, 32, 0, device_stream(dev), out, (const bf16 *)a,
               (const bf16 *)b, b_is_transposed);
    } else {
        LAUNCH((mma_kernel1<f16>), 1, 32, 0, device_stream(dev), out, (const f16 *)a,
               (const f16 *)b, b_is_transposed);
    }
}

CUDA_OP(conformance_cp_async)(Device *dev, void *out, const void *inp, int bytes) {
    LAUNCH(cp_async_kernel1, 1, 8, 0, device_stream(dev), (uint4 *)out, (const uint4 *)inp, bytes);
}

CUDA_OP(conformance_wgmma)(Device *dev, float *out, const void *a, const void *b, int rows, int K) {
    TensorMap a_map, b_map;
    tensor_map(&a_map, a, (size_t)rows, (size_t)K, (size_t)K, 64);
    tensor_map(&b_map, b, (size_t)rows, (size_t)K, (size_t)K, 64);
    LAUNCH(wgmma_kernel1, 1, 160, 16392, device_stream(dev), out, a_map, b_map);
}
