// expects: registers_claim
// Mistake: two warpgroups ask for more registers than the third gives back.
#include "tests/emu/bad.h"

static __global__ void __launch_bounds__(384, 1) kernel(float *out) {
    if (threadIdx.x < 128) {
        registers_release<64>(); // 104 of each thread; the others want 2 x 56
    } else {
        registers_claim<224>(); // 64 + 2 x 224 are 512 x 128, but a block has 3 x 168 x 128
    }
    out[threadIdx.x] = 1;
}

BAD(registers_too_many) {
    LAUNCH(kernel, 1, 384, 0, nullptr, floats_new(384));
}
