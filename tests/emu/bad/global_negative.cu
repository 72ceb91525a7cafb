// expects: out of bounds: reads 4 bytes of a block of 256 bytes of device memory at offset -4
// Mistake: thread 0 reads what stands before the first element.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) {
    out[threadIdx.x] = x[(int)threadIdx.x - 1];
}

BAD(global_negative) {
    LAUNCH(kernel, 1, 64, 0, nullptr, floats_new(64), floats_new(64));
}
