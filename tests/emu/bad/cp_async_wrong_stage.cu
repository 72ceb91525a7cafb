// expects: uninitialised: reads 4 bytes of shared row
// Mistake: the stage that is read was never filled.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) {
    SMEM_STATIC(row, float, [2][4]);
    cp_async16(smem_u32(row[0]), x);
    cp_async_commit();
    cp_async_wait<0>();
    out[0] = row[1][0];
}

BAD(cp_async_wrong_stage) {
    LAUNCH(kernel, 1, 1, 0, nullptr, floats_new(8), floats_new(8));
}
