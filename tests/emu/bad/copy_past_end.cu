// expects: cudaMemcpy from: 132 bytes at offset 0 of a block of 128 bytes
// Mistake: the host copies more than there is.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) { out[threadIdx.x] = 1; }

BAD(copy_past_end) {
    float *const x = floats_new(32), host[33];
    LAUNCH(kernel, 1, 32, 0, nullptr, x);
    CUDA_CHECK(cudaMemcpy(host, x, sizeof host, cudaMemcpyDeviceToHost));
}
