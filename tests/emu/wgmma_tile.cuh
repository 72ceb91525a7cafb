// wgmma_tile: copies by TMA, an mbarrier, warpgroup products: the smallest whole use of the three.
//
//   out = a (64,K) b (COLUMNS,K)^T, zeros beyond the tensors' edges; K <= 64
// Each operand lies in memory as written, or transposed (A_MN, B_MN); its rows begin at multiples
// of 16 bytes. Warp 4 issues the copies, warps 0 to 3 multiply. conformance.cu runs it as it should
// be; kernels of bad/ leave one step out or take it wrongly. A second kernel takes the first
// product's accumulators as registers of A of another product.
#ifndef JOMED_TESTS_EMU_WGMMA_TILE_CUH
#define JOMED_TESTS_EMU_WGMMA_TILE_CUH

#include "kernels/ptx_hopper.cuh"

enum TileMistake {
    TILE_RIGHT,
    TILE_BARRIER_NOT_VISIBLE, // no barrier between initialising the mbarrier and using it
    TILE_BYTES_WRONG,         // the mbarrier expects the bytes of three tiles
    TILE_PARITY_WRONG,        // the parity waited for is that of the phase before the first
    TILE_COPY_NOT_AWAITED,
    TILE_NO_FENCE,            // the accumulators were set to zero just before
    TILE_PRODUCT_NOT_AWAITED,
    TILE_FRAGMENT_TOUCHED,    // registers of A, before the product is awaited
};

// Rows of 64 elements that an operand takes whose kept index has `columns`.
constexpr __host__ __device__ int tile_rows(int columns, int is_mn) {
    return is_mn ? (columns + 63) / 64 * 64 : columns;
}
constexpr int wgmma_tile_bytes(int columns, int b_mn) {
    return (64 + tile_rows(columns, b_mn)) * 128 + 8;
}

// The accumulators of each thread, as they stand in its registers, to out (128,COLUMNS/2).
template <int COLUMNS>
static __device__ void tile_store(float *out, const float (&acc)[COLUMNS / 2]) {
    UNROLL for (int n = 0; n < COLUMNS / 2; n++) {
        out[threadIdx.x * (COLUMNS / 2) + n] = acc[n];
    }
}

// Launch: one block of 160 threads, wgmma_tile_bytes of shared memory. The maps' boxes: 64 rows,
// and COLUMNS for a K-major b.
template <TileMistake mistake, int COLUMNS = 64, int A_MN = 0, int B_MN = 0, typename T = bf16>
static __global__ void wgmma_tile_kernel1(float *out, const __grid_constant__ TensorMap a_map,
                                          const __grid_constant__ TensorMap b_map) {
    const int B_ROWS = tile_rows(COLUMNS, B_MN), BYTES = (64 + B_ROWS) * 128; // of both tiles
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, a, T, 64 * 64, 1024);
    SMEM_TAKE(carver, b, T, B_ROWS * 64, 1024);
    SMEM_TAKE(carver, full, uint64_t, 1, 8);
    const uint32_t bar = smem_u32(full);
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        mbar_init_fence();
    }
    if constexpr (mistake != TILE_BARRIER_NOT_VISIBLE) {
        __syncthreads(); // the barrier is seen by all
    } else if (threadIdx.x == 0) {
        __threadfence_block();
    }
    if (threadIdx.x == 128) {
        mbar_arrive_expect(bar, mistake == TILE_BYTES_WRONG ? BYTES + 8192 : BYTES);
        tma_load(smem_u32(a), &a_map, 0, 0, bar);
        for (int column = 0; column < (B_MN ? COLUMNS : 64); column += 64) {
            tma_load(smem_u32(b) + column * 128, &b_map, column, 0, bar);
        }
    }
    if (threadIdx.x < 128) {
        float acc[COLUMNS / 2];
        UNROLL for (int n = 0; n < COLUMNS / 2; n++) {
            acc[n] = 0;
        }
        if constexpr (mistake != TILE_COPY_NOT_AWAITED) {
            mbar_wait(bar, mistake == TILE_PARITY_WRONG); // both tiles are there
        }
        if constexpr (mistake != TILE_NO_FENCE) {
            wgmma_fence();
        }
        const uint64_t a_tile = A_MN ? wgmma_tile_mn(smem_u32(a), 8192) : wgmma_tile(smem_u32(a));
        const uint64_t b_tile = B_MN ? wgmma_tile_mn(smem_u32(b), 8192) : wgmma_tile(smem_u32(b));
        UNROLL for (int k = 0; k < 4; k++) { // 16 of k: 32 or 2048 bytes, 2 or 128 units
            const uint64_t a_part = a_tile + k * (A_MN ? 128 : 2);
            const uint64_t b_part = b_tile + k * (B_MN ? 128 : 2);
            if constexpr (std::is_same<T, bf16>::value) {
                wgmma_m64k16_bf16<A_MN, B_MN>(acc, a_part, b_part);
            } else {
                wgmma_m64k16_f16<A_MN, B_MN>(acc, a_part, b_part);
            }
        }
        wgmma_commit();
        if constexpr (mistake != TILE_PRODUCT_NOT_AWAITED) {
            wgmma_wait<0>();
        }
        wgmma_hold(acc);
        tile_store<COLUMNS>(out, acc);
    }
}

// acc += a (64,64) b (64,64)^T, both K-major; done on return.
template <typename T>
static __device__ void tile_product(float (&acc)[32], uint64_t a, uint64_t b) {
    wgmma_hold(acc);
    wgmma_fence();
    UNROLL for (int k = 0; k < 4; k++) {
        if constexpr (std::is_same<T, bf16>::value) {
            wgmma_m64k16_bf16<0, 0>(acc, a + 2 * k, b + 2 * k);
        } else {
            wgmma_m64k16_f16<0, 0>(acc, a + 2 * k, b + 2 * k);
        }
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(acc);
}

// out = (a (64,64) b (64,64)^T) c (COLUMNS,64)^T; a, b K-major, the product between
// rounded to T, c MN-major with C_MN. Launch: one block of 128 threads, wgmma_chain_bytes of shared
// memory. Boxes: 64 rows, and COLUMNS for a K-major c.
constexpr int wgmma_chain_bytes(int columns, int c_mn) {
    return (128 + tile_rows(columns, c_mn)) * 128 + 8;
}
template <TileMistake mistake, int COLUMNS = 64, int C_MN = 0, typename T = bf16>
static __global__ void wgmma_chain_kernel1(float *out, const __grid_constant__ TensorMap a_map,
                                           const __grid_constant__ TensorMap b_map,
                                           const __grid_constant__ TensorMap c_map) {
    const int C_ROWS = tile_rows(COLUMNS, C_MN);
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, a, T, 64 * 64, 1024);
    SMEM_TAKE(carver, b, T, 64 * 64, 1024);
    SMEM_TAKE(carver, c, T, C_ROWS * 64, 1024);
    SMEM_TAKE(carver, full, uint64_t, 1, 8);
    const uint32_t bar = smem_u32(full), c_at = smem_u32(c);
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        mbar_init_fence();
    }
    __syncthreads(); // the barrier is seen by all
    if (threadIdx.x == 0) {
        mbar_arrive_expect(bar, (128 + C_ROWS) * 128);
        tma_load(smem_u32(a), &a_map, 0, 0, bar);
        tma_load(smem_u32(b), &b_map, 0, 0, bar);
        for (int column = 0; column < (C_MN ? COLUMNS : 64); column += 64) {
            tma_load(c_at + column * 128, &c_map, column, 0, bar);
        }
    }
    float x[32] = {}, acc[COLUMNS / 2] = {};
    uint32_t fragment[4][4];
    mbar_wait(bar, 0); // the tiles are there
    tile_product<T>(x, wgmma_tile(smem_u32(a)), wgmma_tile(smem_u32(b)));
    UNROLL for (int n = 0; n < 16; n++) {
        fragment[n / 4][n % 4] = pair_of<T>(x[2 * n], x[2 * n + 1]);
    }
    const uint64_t c_tile = C_MN ? wgmma_tile_mn(c_at, 8192) : wgmma_tile(c_at);
    wgmma_hold(acc);
    wgmma_hold(fragment);
    wgmma_fence();
    UNROLL for (int k = 0; k < 4; k++) {
        if constexpr (std::is_same<T, bf16>::value) {
            wgmma_m64k16_bf16<C_MN>(acc, fragment[k], c_tile + k * (C_MN ? 128 : 2));
        } else {
            wgmma_m64k16_f16<C_MN>(acc, fragment[k], c_tile + k * (C_MN ? 128 : 2));
        }
    }
    wgmma_commit();
    if constexpr (mistake == TILE_FRAGMENT_TOUCHED) {
        fragment[0][0] = 0;
    }
    wgmma_wait<0>();
    wgmma_hold(fragment);
    wgmma_hold(acc);
    tile_store<COLUMNS>(out, acc);
}
#endif
