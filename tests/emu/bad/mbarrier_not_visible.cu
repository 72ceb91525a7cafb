// expects: race: atomically writes
// Mistake: no barrier between initialising and using it.
#include "tests/emu/bad.h"

// One tile: out (64x64) = a (64x64) b (64x64)^T. Warp 4 issues the copies, warps 0-3 multiply.
static __global__ void kernel(float *out, const __grid_constant__ TensorMap a_map,
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
    if (threadIdx.x == 0) {
        __threadfence_block();
    }
    if (threadIdx.x == 128) {
        mbar_arrive_expect(bar, 16384);
        tma_load(smem_u32(a), &a_map, 0, 0, bar);
        tma_load(smem_u32(b), &b_map, 0, 0, bar);
    }
    if (threadIdx.x < 128) {
        float acc[32] = {0};
        mbar_wait(bar, 0);
        wgmma_fence();
        for (int k = 0; k < 4; k++) {
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

BAD(mbarrier_not_visible) {
    float *const out = floats_raw(64 * 64);
    void *ones;
    CUDA_CHECK(cudaMalloc(&ones, 8192));
    CUDA_CHECK(cudaMemset(ones, 0x40, 8192)); // 0x4040 is 3 as bf16
    TensorMap map;
    tensor_map(&map, ones, 64, 64, 64, 64);
    SMEM_ALLOW(kernel, 32768);
    LAUNCH(kernel, 1, 160, 16400, nullptr, out, map, map);
    want(out, 0, 576);
}
