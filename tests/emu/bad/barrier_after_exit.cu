// expects: a thread ends while
// Mistake: threads behind the end return before the barrier.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, int n) {
    if (threadIdx.x >= n) {
        return;
    }
    out[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = 2;
}

BAD(barrier_after_exit) {
    LAUNCH(kernel, 1, 64, 0, nullptr, floats_new(64), 50);
}
