// expects: wrong result: element 0
// Mistake: the two registers of b are swapped.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    const uint32_t one = 0x3f803f80u; // two ones in bf16
    const uint32_t a[4] = {one, one, 0, 0}, b[2] = {0, one};
    float acc[4] = {0, 0, 0, 0};
    mma_m16n8k16_bf16(acc, a, b);
    out[threadIdx.x] = acc[0];
}

BAD(mma_fragment_order) {
    float *const x = floats_new(32);
    LAUNCH(kernel, 1, 32, 0, nullptr, x);
    want(x, 0, 8); // row 0 of a is one in its first eight columns, as column 0 of b should be
}
