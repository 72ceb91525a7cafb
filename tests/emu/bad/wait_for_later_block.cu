// expects: never ends: it waits for a later block
// Mistake: block 0 waits for block 1, which starts when block 0 is done.
#include "tests/emu/bad.h"

static __global__ void kernel(unsigned *flag) {
    if (blockIdx.x == 1) {
        atomicExch(flag, 1u);
    } else {
        while (atomicAdd(flag, 0u) == 0) {
            spin();
        }
    }
}

BAD(wait_for_later_block) {
    unsigned *flag;
    CUDA_CHECK(cudaMalloc(&flag, 4));
    CUDA_CHECK(cudaMemset(flag, 0, 4));
    LAUNCH(kernel, 2, 1, 0, nullptr, flag);
}
