// expects: before the asynchronous copy to it was waited for
// Mistake: one group may still be under way, and it is the one that is read.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, const float *x) {
    SMEM_STATIC(row, float, [2][4]);
    cp_async16(smem_u32(row[0]), x);
    cp_async_commit();
    cp_async16(smem_u32(row[1]), x + 4);
    cp_async_commit();
    cp_async_wait<1>();
    out[0] = row[1][0];
}

BAD(cp_async_wait_count) {
    LAUNCH(kernel, 1, 1, 0, nullptr, floats_new(8), floats_new(8));
}
