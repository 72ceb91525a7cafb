// expects: out of bounds: writes 4 bytes of shared row
// Mistake: one element behind the dynamic part.
#include "tests/emu/bad.h"

static __global__ void kernel(int n) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, row, float, n, 16);
    row[threadIdx.x + 1] = 1;
}

BAD(shared_dynamic_past_end) {
    LAUNCH(kernel, 1, 32, 128, nullptr, 32);
}
