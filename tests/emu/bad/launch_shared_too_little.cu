// expects: the parts have 256 bytes by now, the launch gave 128
// Mistake: the launch counts fewer bytes than the kernel takes.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, int n) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, row, float, n, 16);
    row[threadIdx.x] = 1;
    out[threadIdx.x] = row[threadIdx.x];
}

BAD(launch_shared_too_little) {
    LAUNCH(kernel, 1, 32, 128, nullptr, floats_new(32), 64);
}
