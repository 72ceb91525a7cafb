// expects: wrong result: element 0
// Mistake: the accumulator in a register has no first value.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, int n) {
    float sum[2];
    for (int i = 0; i < n; i++) {
        sum[i % 2] += 1;
    }
    out[threadIdx.x] = sum[0] + sum[1];
}

BAD(accumulator_not_zero) {
    float *const x = floats_new(32);
    LAUNCH(kernel, 1, 32, 0, nullptr, x, 3);
    want(x, 0, 3);
}
