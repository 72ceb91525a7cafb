// expects: barrier in divergent code: __syncthreads
// Mistake: half of the block waits at another line.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        out[threadIdx.x] = 1;
        __syncthreads();
    }
}

BAD(barrier_divergent) {
    LAUNCH(kernel, 1, 64, 0, nullptr, floats_new(64));
}
