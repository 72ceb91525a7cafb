// expects: a local variable of another thread
// Mistake: thread 1 is handed the address of a local variable of thread 0.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    SMEM_STATIC(shown, const float *, [1]);
    const float mine = (float)threadIdx.x;
    if (threadIdx.x == 0) {
        shown[0] = &mine;
    }
    __syncthreads();
    out[threadIdx.x] = *shown[0];
    __syncthreads();
}

BAD(local_of_other_thread) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32));
}
