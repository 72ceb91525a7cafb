// expects: launch with 1056 threads a block
// Mistake: more threads than a block may have.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) { out[threadIdx.x] = 1; }

BAD(launch_threads) {
    LAUNCH(kernel, 1, 1056, 0, nullptr, floats_new(2000));
}
