// expects: runtime error: index 33 out of bounds
// Mistake: a column that the row does not have.
#include "tests/emu/bad.h"

static __global__ void kernel(int column) {
    SMEM_STATIC(tile, float, [32][33]);
    tile[0][column] = 1;
}

BAD(shared_row_index) {
    LAUNCH(kernel, 1, 1, 0, nullptr, 33);
}
