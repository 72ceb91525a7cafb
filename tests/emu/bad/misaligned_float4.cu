// expects: misaligned address
// Mistake: four floats at once from an address that is a multiple of 4 only.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) {
    const float4 v = *(const float4 *)(x + threadIdx.x);
    out[threadIdx.x] = v.x;
}

BAD(misaligned_float4) {
    LAUNCH(kernel, 1, 8, 0, nullptr, floats_new(16), floats_new(16));
}
