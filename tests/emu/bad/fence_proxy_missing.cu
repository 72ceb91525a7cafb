// expects: no fence_proxy_async: asynchronously reads
// Mistake: tiles stored by the threads themselves are multiplied without the fence.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, a, bf16, 64 * 64, 1024);
    for (int i = threadIdx.x; i < 64 * 64; i += 128) {
        a[i] = from_float<bf16>(1);
    }
    __syncthreads(); // fence_proxy_async() belongs before it
    float acc[32] = {0};
    wgmma_fence();
    wgmma_m64k16_bf16<0, 0>(acc, wgmma_tile(smem_u32(a)), wgmma_tile(smem_u32(a)));
    wgmma_commit();
    wgmma_wait<0>();
    out[threadIdx.x] = acc[0];
}

BAD(fence_proxy_missing) {
    LAUNCH(kernel, 1, 128, 8192, nullptr, floats_new(128));
}
