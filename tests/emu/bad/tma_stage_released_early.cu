// expects: race: asynchronously
// Mistake: the stage goes back to the producer before its product was waited for.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const __grid_constant__ TensorMap map) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, a, bf16, 64 * 64, 1024);
    SMEM_TAKE(carver, bars, uint64_t, 2, 8);
    const uint32_t full = smem_u32(bars), empty = full + 8;
    if (threadIdx.x == 0) {
        mbar_init(full, 1);
        mbar_init(empty, 128);
    }
    __syncthreads();
    if (threadIdx.x == 128) {
        for (int turn = 0; turn < 2; turn++) {
            mbar_wait(empty, turn ^ 1);
            mbar_arrive_expect(full, 8192);
            tma_load(smem_u32(a), &map, 0, 0, full);
        }
    }
    if (threadIdx.x < 128) {
        float acc[32] = {0};
        for (int turn = 0; turn < 2; turn++) {
            mbar_wait(full, turn);
            wgmma_fence();
            wgmma_m64k16_bf16<0, 0>(acc, wgmma_tile(smem_u32(a)), wgmma_tile(smem_u32(a)));
            wgmma_commit();
            mbar_arrive(empty); // belongs after the wait
            wgmma_wait<0>();
        }
        out[threadIdx.x] = acc[0];
    }
}

BAD(tma_stage_released_early) {
    void *ones;
    CUDA_CHECK(cudaMalloc(&ones, 8192));
    CUDA_CHECK(cudaMemset(ones, 0x40, 8192));
    TensorMap map;
    tensor_map(&map, ones, 64, 64, 64, 64);
    LAUNCH(kernel, 1, 160, 8208, nullptr, floats_new(128), map);
}
