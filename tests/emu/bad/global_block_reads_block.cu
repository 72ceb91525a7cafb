// expects: a thread of another block wrote it
// Mistake: the second block reads what the first has written.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) { out[blockIdx.x + 1] = out[blockIdx.x]; }

BAD(global_block_reads_block) {
    LAUNCH(kernel, 2, 1, 0, nullptr, floats_new(3));
}
