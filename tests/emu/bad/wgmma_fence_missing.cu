// expects: without wgmma_fence
// Mistake: the accumulators were set to zero just before.
#include "tests/emu/bad.h"

BAD(wgmma_fence_missing) {
    bad_tile<TILE_NO_FENCE>();
}
