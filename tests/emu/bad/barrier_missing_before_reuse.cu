// expects: race: reads 4 bytes of shared row
// Mistake: the second turn writes what others may still read in the first.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    SMEM_STATIC(row, float, [64]);
    for (int turn = 0; turn < 2; turn++) {
        row[threadIdx.x] = (float)turn;
        __syncthreads();
        out[threadIdx.x] = row[63 - threadIdx.x];
    }
}

BAD(barrier_missing_before_reuse) {
    LAUNCH(kernel, 1, 64, 0, nullptr, floats_new(64));
}
