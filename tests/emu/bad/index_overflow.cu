// expects: runtime error: signed integer overflow
// Mistake: row times row length in int.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out, int row, int C) { out[(row * C) & 31] = 1; }

BAD(index_overflow) {
    LAUNCH(kernel, 1, 1, 0, nullptr, floats_new(32), 70000, 70000);
}
