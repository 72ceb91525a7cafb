// expects: race: writes 4 bytes of a block of 4 bytes
// Mistake: all threads store the same value to one place.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) { out[0] = 1; }

BAD(global_two_threads) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(1));
}
