// expects: misaligned address
// Mistake: two floats at once from an address that is a multiple of 4 only.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) {
    const float2 v = *(const float2 *)(x + threadIdx.x);
    out[threadIdx.x] = v.y;
}

BAD(misaligned_float2) {
    LAUNCH(kernel, 1, 8, 0, nullptr, floats_new(16), floats_new(16));
}
