// expects: diverge: __shfl_xor_sync
// Mistake: two branches exchange at two lines with one mask.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    float x = out[threadIdx.x];
    if (threadIdx.x % 2) {
        x += __shfl_xor_sync(0xffffffffu, x, 1);
    } else {
        x -= __shfl_xor_sync(0xffffffffu, x, 1);
    }
    out[threadIdx.x] = x;
}

BAD(shuffle_divergent) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32));
}
