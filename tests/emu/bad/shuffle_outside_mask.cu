// expects: reads lane 16, which is not in the mask
// Mistake: the source lane takes no part.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    if (threadIdx.x < 16) {
        out[threadIdx.x] = __shfl_down_sync(0xffffu, out[threadIdx.x], 1);
    }
}

BAD(shuffle_outside_mask) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32));
}
