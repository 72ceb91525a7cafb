// expects: barrier 1: 64 threads at
// Mistake: two warps disagree about how many meet.
#include "tests/emu/bad.h"

static __global__ void kernel() {
    if (threadIdx.x < 32) {
        bar_sync(1, 96);
    } else {
        bar_sync(1, 64);
    }
}

BAD(barrier_named_count) {
    LAUNCH(kernel, 1, 96, 0, nullptr);
}
