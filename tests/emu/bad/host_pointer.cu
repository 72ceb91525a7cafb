// expects: host memory in a kernel
// Mistake: a pointer of the host is given to the kernel.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) { out[threadIdx.x] = x[threadIdx.x]; }

BAD(host_pointer) {
    float x[32] = {0};
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32), x);
}
