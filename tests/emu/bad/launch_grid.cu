// expects: at most 65535 in y and z
// Mistake: rows go to the y dimension of the grid.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    if (blockIdx.y == 0) {
        out[threadIdx.x] = 1;
    }
}

BAD(launch_grid) {
    LAUNCH(kernel, dim3(1, 70000), 32, 0, nullptr, floats_new(32));
}
