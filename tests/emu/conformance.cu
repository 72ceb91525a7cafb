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

// Warpgroup 0 gives registers back, the others take them; out (384): the thread's number.
static __global__ void __launch_bounds__(384, 1) registers_kernel1(float *out) {
    if (threadIdx.x < 128) {
        registers_release<40>();
        out[threadIdx.x] = (float)threadIdx.x;
    } else {
        registers_claim<232>();
        out[threadIdx.x] = (float)threadIdx.x;
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

CUDA_OP(conformance_registers)(Device *dev, float *out) {
    LAUNCH(registers_kernel1, 1, 384, 0, device_stream(dev), out);
}

template <typename T, int COLUMNS, int A_MN, int B_MN>
static void wgmma_tile_launch(Device *dev, float *out, const TensorMap &a, const TensorMap &b) {
    const int bytes = wgmma_tile_bytes(COLUMNS, B_MN);
    SMEM_ALLOW((wgmma_tile_kernel1<TILE_RIGHT, COLUMNS, A_MN, B_MN, T>), bytes);
    LAUNCH((wgmma_tile_kernel1<TILE_RIGHT, COLUMNS, A_MN, B_MN, T>), 1, 160, bytes,
           device_stream(dev), out, a, b);
}
template <typename T, int COLUMNS>
static void wgmma_majors_launch(Device *dev, float *out, const TensorMap &a, const TensorMap &b,
                                int a_mn, int b_mn) {
    (a_mn ? (b_mn ? wgmma_tile_launch<T, COLUMNS, 1, 1> : wgmma_tile_launch<T, COLUMNS, 1, 0>)
          : (b_mn ? wgmma_tile_launch<T, COLUMNS, 0, 1> : wgmma_tile_launch<T, COLUMNS, 0, 0>))(
        dev, out, a, b);
}
template <typename T>
static void wgmma_width_launch(Device *dev, float *out, const TensorMap &a, const TensorMap &b,
                               int width, int a_mn, int b_mn) {
    (width == 64    ? wgmma_majors_launch<T, 64>
     : width == 80  ? wgmma_majors_launch<T, 80>
     : width == 128 ? wgmma_majors_launch<T, 128>
     : width == 192 ? wgmma_majors_launch<T, 192>
                    : wgmma_majors_launch<T, 256>)(dev, out, a, b, a_mn, b_mn);
}

// a: (rows,K), or (K,rows) with a_mn; b: (columns,K), or (K,columns); out: (64,width) with
// width = 64, 80, 128, 192 or 256.
CUDA_OP(conformance_wgmma)(Device *dev, DType t, float *out, const void *a, const void *b,
                           int width, int a_mn, int b_mn, int rows, int columns, int K) {
    TensorMap a_map, b_map;
    tensor_map(&a_map, a, (size_t)(a_mn ? K : rows), (size_t)(a_mn ? rows : K),
               (size_t)(a_mn ? rows : K), 64);
    tensor_map(&b_map, b, (size_t)(b_mn ? K : columns), (size_t)(b_mn ? columns : K),
               (size_t)(b_mn ? columns : K), b_mn ? 64 : width);
    (t == DT_BF16 ? wgmma_width_launch<bf16> : wgmma_width_launch<f16>)(dev, out, a_map, b_map,
                                                                        width, a_mn, b_mn);
}

template <typename T, int COLUMNS, int C_MN>
static void wgmma_chain_launch(Device *dev, float *out, const TensorMap &a, const TensorMap &b,
                               const TensorMap &c) {
    const int bytes = wgmma_chain_bytes(COLUMNS, C_MN);
    SMEM_ALLOW((wgmma_chain_kernel1<TILE_RIGHT, COLUMNS, C_MN, T>), bytes);
    LAUNCH((wgmma_chain_kernel1<TILE_RIGHT, COLUMNS, C_MN, T>), 1, 128, bytes, device_stream(dev),
           out, a, b, c);
}
template <typename T, int C_MN>
static void wgmma_chain_width(Device *dev, float *out, const TensorMap &a, const TensorMap &b,
                              const TensorMap &c, int width) {
    (width == 64    ? wgmma_chain_launch<T, 64, C_MN>
     : width == 80  ? wgmma_chain_launch<T, 80, C_MN>
     : width == 128 ? wgmma_chain_launch<T, 128, C_MN>
     : width == 192 ? wgmma_chain_launch<T, 192, C_MN>
                    : wgmma_chain_launch<T, 256, C_MN>)(dev, out, a, b, c);
}

// a, b: (64,K); c: (width,64), or (64,width) with c_mn; out: (64,width).
CUDA_OP(conformance_wgmma_chain)(Device *dev, DType t, float *out, const void *a, const void *b,
                                 const void *c, int width, int c_mn, int K) {
    const size_t rows = (size_t)(c_mn ? 64 : width), columns = (size_t)(c_mn ? width : 64);
    TensorMap a_map, b_map, c_map;
    tensor_map(&a_map, a, 64, (size_t)K, (size_t)K, 64);
    tensor_map(&b_map, b, 64, (size_t)K, (size_t)K, 64);
    tensor_map(&c_map, c, rows, columns, columns, c_mn ? 64 : width);
    (t == DT_BF16 ? (c_mn ? wgmma_chain_width<bf16, 1> : wgmma_chain_width<bf16, 0>)
                  : (c_mn ? wgmma_chain_width<f16, 1> : wgmma_chain_width<f16, 0>))(
        dev, out, a_map, b_map, c_map, width);
}
