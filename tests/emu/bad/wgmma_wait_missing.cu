// expects: wrong result: element 0 is nan
// Mistake: nobody waits for the products.
#include "tests/emu/bad.h"

BAD(wgmma_wait_missing) {
    bad_tile<TILE_PRODUCT_NOT_AWAITED>();
}
