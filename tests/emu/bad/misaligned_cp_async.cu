// expects: cp.async at tests/emu/bad/misaligned_cp_async.cu:7: misaligned
// Mistake: the source is a multiple of 4 bytes only.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) {
    SMEM_STATIC(row, uint4, [1]);
    cp_async16(smem_u32(row), x + 1);
    cp_async_commit();
    cp_async_wait<0>();
    out[0] = __uint_as_float(row[0].x);
}

BAD(misaligned_cp_async) {
    LAUNCH(kernel, 1, 1, 0, nullptr, floats_new(8), floats_new(8));
}
