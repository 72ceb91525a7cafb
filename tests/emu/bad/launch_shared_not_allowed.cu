// expects: over 49152 needs SMEM_ALLOW first
// Mistake: much shared memory without leave.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, int n) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, row, float, n, 16);
    row[threadIdx.x] = 1;
    out[threadIdx.x] = row[threadIdx.x];
}

BAD(launch_shared_not_allowed) {
    LAUNCH(kernel, 1, 32, 65536, nullptr, floats_new(32), 16384);
}
