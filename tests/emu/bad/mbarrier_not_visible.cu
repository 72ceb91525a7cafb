// expects: race: atomically writes
// Mistake: no barrier between initialising and using it.
#include "tests/emu/bad.h"

BAD(mbarrier_not_visible) {
    bad_tile<TILE_BARRIER_NOT_VISIBLE>();
}
