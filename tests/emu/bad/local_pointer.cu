// expects in asan: stack-buffer-overflow
// Mistake: as local_index, but through a pointer: only ASan sees it.
#include "tests/emu/bad.h"

static __device__ __noinline__ void count(float *sum, int n) {
    for (int i = 0; i <= n; i++) {
        sum[i] += 1;
    }
}
static __global__ void kernel(float *out, int n) {
    float sum[4] = {0, 0, 0, 0};
    count(sum, n);
    out[threadIdx.x] = sum[0];
}

BAD(local_pointer) {
    LAUNCH(kernel, 1, 1, 0, nullptr, floats_new(1), 4);
}
