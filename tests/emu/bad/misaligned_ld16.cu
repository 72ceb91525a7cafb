// expects: misaligned address
// Mistake: a pack begins at an odd element.
#include "tests/emu/bad.h"

static __global__ void kernel(bf16 *out, const bf16 *x) {
    pack_store(out, pack_load(x + 1));
}

BAD(misaligned_ld16) {
    LAUNCH(kernel, 1, 1, 0, nullptr, (bf16 *)floats_new(16), (const bf16 *)floats_new(16));
}
