// expects: race: reads 4 bytes of shared row
// Mistake: lanes pass data through shared memory and trust in marching together.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    SMEM_STATIC(row, float, [32]);
    row[threadIdx.x] = (float)threadIdx.x;
    __ballot_sync(0xffffffffu, 1); // meets, but does not order memory
    out[threadIdx.x] = row[31 - threadIdx.x];
}

BAD(warp_without_syncwarp) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32));
}
