// expects: signal 11
// Mistake: the host follows a device pointer.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) { out[threadIdx.x] = 1; }

BAD(host_reads_device) {
    float *const x = floats_new(32);
    LAUNCH(kernel, 1, 32, 0, nullptr, x);
    if (*(volatile float *)x == 1) {
        CUDA_CHECK(cudaFree(x));
    }
}
