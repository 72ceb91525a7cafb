// expects: out of bounds: writes 4 bytes of a block of 200 bytes
// Mistake: the last block has threads without an element.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) { out[blockIdx.x * blockDim.x + threadIdx.x] = 1; }

BAD(global_guard_missing) {
    LAUNCH(kernel, 2, 32, 0, nullptr, floats_new(50));
}
