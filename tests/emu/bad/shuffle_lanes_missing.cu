// expects: names lanes 00010000, which have ended
// Mistake: the mask names 32 lanes, and 16 come.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    if (threadIdx.x < 16) {
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, out[threadIdx.x], 1);
    }
}

BAD(shuffle_lanes_missing) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32));
}
