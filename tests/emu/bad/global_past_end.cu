// expects: out of bounds: reads 4 bytes of a block of 256 bytes
// Mistake: the last thread reads one element too far.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) { out[threadIdx.x] = x[threadIdx.x + 1]; }

BAD(global_past_end) {
    LAUNCH(kernel, 1, 64, 0, nullptr, floats_new(64), floats_new(64));
}
