// expects: out of bounds: writes 4 bytes of shared tile
// Mistake: one element behind the array, through a pointer.
#include "tests/emu/bad.h"

static __global__ void kernel() {
    SMEM_STATIC(tile, float, [8][4]);
    float *flat = &tile[0][0];
    flat[threadIdx.x + 1] = 1;
}

BAD(shared_static_past_end) {
    LAUNCH(kernel, 1, 32, 0, nullptr);
}
