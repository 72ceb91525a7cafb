// wgmma_tile: copies by TMA, an mbarrier, warpgroup products: the smallest whole use of the three.
//
//   out (64,64) = a (rows,K) b (rows,K)^T, zeros beyond rows and K; K <= 64 a multiple of 8
// Warp 4 issues the copies, warps 0 to 3 multiply. conformance.cu runs it as it should be; kernels
// of bad/ leave one step out or take it wrongly.
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

// Launch: one block of 160 threads, WGMMA_TILE_BYTES of shared memory.
constexpr int WGMMA_TILE_BYTES = 2 * 64 * 64 * 2 + 8; // two tiles and an mbarrier
template <TileMistake mistake>
static __global__ void wgmma_tile_kernel1(float *out, const __grid_constant__ TensorMap a_map,
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
    if constexpr (mistake != TILE_BARRIER_NOT_VISIBLE) {
        __syncthreads(); // the barrier is seen by all
    } else if (threadIdx.x == 0) {
        __threadfence_block();
    }
    if (threadIdx.x == 128) {
        mbar_arrive_expect(bar, (mistake == TILE_BYTES_WRONG ? 3 : 2) * 8192);
        tma_load(smem_u32(a), &a_map, 0, 0, bar);
        tma_load(smem_u32(b), &b_map, 0, 0, bar);
    }
    if (threadIdx.x < 128) {
        float acc[32];
        for (int n = 0; n < 32; n++) {
            acc[n] = 0;
        }
        if constexpr (mistake != TILE_COPY_NOT_AWAITED) {
            mbar_wait(bar, mistake == TILE_PARITY_WRONG); // both tiles are there
        }
        if constexpr (mistake != TILE_NO_FENCE) {
            wgmma_fence();
        }
        for (int k = 0; k < 4; k++) { // 16 elements, 32 bytes, 2 units of a descriptor
            wgmma_m64n64k16_bf16(acc, wgmma_tile(smem_u32(a)) + 2 * k,
                                 wgmma_tile(smem_u32(b)) + 2 * k);
        }
        wgmma_commit();
        if constexpr (mistake != TILE_PRODUCT_NOT_AWAITED) {
            wgmma_wait<0>();
        }
        const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
        for (int n = 0; n < 32; n++) {
            out[(row + n / 2 % 2 * 8) * 64 + n / 4 * 8 + threadIdx.x % 4 * 2 + n % 2] = acc[n];
        }
    }
}
#endif
