// expects: uninitialised: reads 4 bytes of a block
// Mistake: the input was allocated and never filled.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) { out[threadIdx.x] = x[threadIdx.x]; }

BAD(global_never_written) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32), floats_raw(32));
}
