// expects: uninitialised: asynchronously reads
// Mistake: nobody waits for the copies.
#include "tests/emu/bad.h"

BAD(tma_wait_missing) {
    bad_tile<TILE_COPY_NOT_AWAITED>();
}
