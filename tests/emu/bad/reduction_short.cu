// expects: wrong result: element 0
// Mistake: the butterfly leaves out its last step.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    float x = 1;
    for (int step = 16; step > 1; step /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    out[threadIdx.x] = x;
}

BAD(reduction_short) {
    float *const x = floats_new(32);
    LAUNCH(kernel, 1, 32, 0, nullptr, x);
    want(x, 0, 32);
}
