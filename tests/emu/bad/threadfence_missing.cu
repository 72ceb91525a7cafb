// expects: a thread of another block wrote it
// Mistake: the last block reads what the others wrote without a fence.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, float *part, unsigned *count) {
    part[blockIdx.x] = 1;
    if (atomicAdd(count, 1u) == gridDim.x - 1) { // the last block adds up
        for (int b = 0; b < gridDim.x; b++) {
            out[0] += part[b];
        }
    }
}

BAD(threadfence_missing) {
    unsigned *count;
    CUDA_CHECK(cudaMalloc(&count, 4));
    CUDA_CHECK(cudaMemset(count, 0, 4));
    LAUNCH(kernel, 3, 1, 0, nullptr, floats_new(1), floats_raw(3), count);
}
