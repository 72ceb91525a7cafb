// expects: leaves out the calling lane 16
// Mistake: the mask names 16 lanes, and 32 call.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    out[threadIdx.x] = __shfl_xor_sync(0xffffu, out[threadIdx.x], 1);
}

BAD(shuffle_mask_without_caller) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32));
}
