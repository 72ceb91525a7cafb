// expects: after 1 of 64 threads have ended
// Mistake: thread 0 returns first, the others come to the barrier later.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    if (threadIdx.x == 0) {
        return;
    }
    out[threadIdx.x] = 1;
    __syncthreads();
}

BAD(barrier_after_exit_of_warp) {
    LAUNCH(kernel, 1, 64, 0, nullptr, floats_new(64));
}
