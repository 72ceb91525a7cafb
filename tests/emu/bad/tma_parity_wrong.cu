// expects: uninitialised: asynchronously reads
// Mistake: the parity waited for is that of the phase before the first.
#include "tests/emu/bad.h"

BAD(tma_parity_wrong) {
    bad_tile<TILE_PARITY_WRONG>();
}
