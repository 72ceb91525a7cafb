// expects: another thread took
// Mistake: the parts are not the same for all threads.
#include "tests/emu/bad.h"

static __global__ void kernel() {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, row, float, threadIdx.x + 1, 16);
    row[0] = 1;
}

BAD(shared_take_differs) {
    LAUNCH(kernel, 1, 32, 4096, nullptr);
}
