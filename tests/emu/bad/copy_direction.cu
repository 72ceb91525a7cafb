// expects: cudaMemcpy of kind 1 from device to host memory
// Mistake: the direction is the wrong way round.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) { out[threadIdx.x] = 1; }

BAD(copy_direction) {
    float *const x = floats_new(32), host[32];
    LAUNCH(kernel, 1, 32, 0, nullptr, x);
    CUDA_CHECK(cudaMemcpy(host, x, sizeof host, cudaMemcpyHostToDevice));
}
