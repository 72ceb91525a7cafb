// expects: race: reads 4 bytes of shared row
// Mistake: thread 0 has written already, but by luck: nothing orders the read.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    SMEM_STATIC(row, float, [1]);
    if (threadIdx.x == 0) {
        row[0] = 1;
    }
    out[threadIdx.x] = row[0];
}

BAD(barrier_missing_race) {
    LAUNCH(kernel, 1, 64, 0, nullptr, floats_new(64));
}
