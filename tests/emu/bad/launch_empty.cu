// expects: launch of nothing
// Mistake: no block at all, for an empty batch.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) { out[threadIdx.x] = 1; }

BAD(launch_empty) {
    LAUNCH(kernel, 0, 32, 0, nullptr, floats_new(32));
}
