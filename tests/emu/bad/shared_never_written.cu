// expects: uninitialised: reads 4 bytes of shared sum
// Mistake: nobody sets the sum to zero first.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    SMEM_STATIC(sum, float, [1]);
    if (threadIdx.x == 0) {
        sum[0] += 1;
        out[0] = sum[0];
    }
}

BAD(shared_never_written) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(1));
}
