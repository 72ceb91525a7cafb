// expects: a K-major tile as an MN-major operand
// Mistake: the product takes a tile along the wrong index.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, a, bf16, 64 * 64, 1024);
    for (int i = threadIdx.x; i < 64 * 64; i += 128) {
        a[i] = from_float<bf16>(1);
    }
    fence_proxy_async();
    __syncthreads();
    float acc[32] = {0};
    wgmma_fence();
    wgmma_m64k16_bf16<0, 1>(acc, wgmma_tile(smem_u32(a)), wgmma_tile(smem_u32(a)));
    wgmma_commit();
    wgmma_wait<0>();
    out[threadIdx.x] = acc[0];
}

BAD(wgmma_major_wrong) {
    LAUNCH(kernel, 1, 128, 8192, nullptr, floats_new(128));
}
