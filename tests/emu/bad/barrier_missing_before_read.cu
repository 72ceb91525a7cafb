// expects: uninitialised: reads 4 bytes of shared row
// Mistake: the neighbour reads before the barrier that is not there.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    SMEM_STATIC(row, float, [64]);
    row[threadIdx.x] = 1;
    out[threadIdx.x] = row[(threadIdx.x + 1) % 64];
}

BAD(barrier_missing_before_read) {
    LAUNCH(kernel, 1, 64, 0, nullptr, floats_new(64));
}
