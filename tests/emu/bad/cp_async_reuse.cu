// expects: race: reads 4 bytes of shared row
// Mistake: the stage is filled again while others may still read it.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) {
    SMEM_STATIC(row, float, [32][4]);
    for (int turn = 0; turn < 2; turn++) {
        cp_async16(smem_u32(row[threadIdx.x]), x + 4 * threadIdx.x);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        out[threadIdx.x] = row[31 - threadIdx.x][0];
    }
}

BAD(cp_async_reuse) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32), floats_new(128));
}
