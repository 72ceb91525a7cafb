// expects: a thread of another block wrote it
// Mistake: two blocks store to one element.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) { out[threadIdx.x] = 1; }

BAD(global_two_blocks) {
    LAUNCH(kernel, 2, 32, 0, nullptr, floats_new(32));
}
