// wgmma_tile: copies by TMA, an mbarrier, warpgroup products: the smallest whole use of the three.
//
//   out (64,COLUMNS) = a (64,K) b (COLUMNS,K)^T, zeros beyond the tensors' edges; K <= 64
// Each operand lies in memory as written, or transposed (A_MN, B_MN); its rows begin at multiples
// of 16 bytes. Warp 4 issues the copies, warps 0 to 3 multiply. conformance.cu runs it as it should
// be; kernels of bad/ leave one step out or take it wrongly.
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
};

// Launch: one block of 160 threads, wgmma_tile_bytes(COLUMNS) of shared memory. The maps' boxes: 64
// rows, and COLUMNS for a K-major b.
constexpr int wgmma_tile_bytes(int columns) { return (64 + columns) * 128 + 8; }
template <TileMistake mistake, int COLUMNS = 64, int A_MN = 0, int B_MN = 0, typename T = bf16>
static __global__ void wgmma_tile_kernel1(float *out, const __grid_constant__ TensorMap a_map,
                                          const __grid_constant__ TensorMap b_map) {
    const int BYTES = (64 + COLUMNS) * 128; // of both tiles
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, a, T, 64 * 64, 1024);
    SMEM_TAKE(carver, b, T, COLUMNS * 64, 1024);
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
        const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
        UNROLL for (int n = 0; n < COLUMNS / 2; n++) {
            out[(row + n / 2 % 2 * 8) * COLUMNS + n / 4 * 8 + threadIdx.x % 4 * 2 + n % 2] = acc[n];
        }
    }
}
#endif
