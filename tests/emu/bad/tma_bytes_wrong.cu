// expects: deadlock: no thread can go on
// Mistake: the barrier expects the bytes of three tiles.
#include "tests/emu/bad.h"

BAD(tma_bytes_wrong) {
    bad_tile<TILE_BYTES_WRONG>();
}
