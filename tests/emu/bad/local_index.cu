// expects: runtime error: load of address
// Mistake: a local array is too short for the index.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, int n) {
    float sum[4] = {0, 0, 0, 0};
    for (int i = 0; i <= n; i++) {
        sum[i] += 1;
    }
    out[threadIdx.x] = sum[0];
}

BAD(local_index) {
    LAUNCH(kernel, 1, 1, 0, nullptr, floats_new(1), 4);
}
