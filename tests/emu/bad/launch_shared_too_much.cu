// expects: invalid argument
// Mistake: more shared memory than a block can have.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, int n) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, row, float, n, 16);
    row[threadIdx.x] = 1;
    out[threadIdx.x] = row[threadIdx.x];
}

BAD(launch_shared_too_much) {
    SMEM_ALLOW(kernel, 240000);
    LAUNCH(kernel, 1, 32, 240000, nullptr, floats_new(32), 60000);
}
