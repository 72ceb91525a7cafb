// conformance: one small kernel per group of wrappers of ptx.cuh and ptx_hopper.cuh, on small
// integers, so that results are exact. The same source runs in the emulator and on a GPU: both must
// give what tests/test_conformance.c computes in plain loops.
#include "tests/emu/wgmma_tile.cuh"

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
    LAUNCH(wgmma_tile_kernel1<TILE_RIGHT>, 1, 160, WGMMA_TILE_BYTES, device_stream(dev), out, a_map,
           b_map);
}
