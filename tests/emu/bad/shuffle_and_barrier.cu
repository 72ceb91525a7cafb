// expects: deadlock: no thread can go on
// Mistake: half of a warp exchanges, the other half is at the barrier.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    if (threadIdx.x < 16) {
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    }
    __syncthreads();
}

BAD(shuffle_and_barrier) {
    LAUNCH(kernel, 1, 64, 0, nullptr, floats_new(64));
}
