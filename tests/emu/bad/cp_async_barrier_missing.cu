// expects: race: reads 4 bytes of shared row
// Mistake: each thread waits for its own copies, and reads those of another one.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) {
    SMEM_STATIC(row, float, [32][4]);
    cp_async16(smem_u32(row[threadIdx.x]), x + 4 * threadIdx.x);
    cp_async_commit();
    cp_async_wait<0>();
    __ballot_sync(0xffffffffu, 1);
    out[threadIdx.x] = row[31 - threadIdx.x][0];
}

BAD(cp_async_barrier_missing) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32), floats_new(128));
}
