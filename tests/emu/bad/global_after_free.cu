// expects: out of bounds: writes 4 bytes
// Mistake: the block was freed.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) { out[threadIdx.x] = 1; }

BAD(global_after_free) {
    float *const x = floats_new(32);
    CUDA_CHECK(cudaFree(x));
    LAUNCH(kernel, 1, 32, 0, nullptr, x);
}
