// expects: bytes of static and 0 of dynamic shared memory
// Mistake: static arrays of more than 48 KB.
#include "tests/emu/bad.h"

static __global__ void kernel() {
    SMEM_STATIC(tile, float, [128][100]);
    tile[threadIdx.x][0] = 1;
}

BAD(shared_static_too_much) {
    LAUNCH(kernel, 1, 32, 0, nullptr);
}
