// expects: deadlock: no thread can go on
// Mistake: the barrier waits for 96 threads, and 64 come.
#include "tests/emu/bad.h"

static __global__ void kernel() {
    if (threadIdx.x < 64) {
        bar_sync(1, 96);
    }
}

BAD(barrier_named_short) {
    LAUNCH(kernel, 1, 96, 0, nullptr);
}
