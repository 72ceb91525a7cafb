// expects: registers of A were changed before wgmma_wait
// Mistake: the next factor is written while the product still reads the last one.
#include "tests/emu/bad.h"

BAD(wgmma_fragment_touched) {
    void *threes;
    CUDA_CHECK(cudaMalloc(&threes, 8192));
    CUDA_CHECK(cudaMemset(threes, 0x40, 8192));
    TensorMap map;
    tensor_map(&map, threes, 64, 64, 64, 64);
    LAUNCH(wgmma_chain_kernel1<TILE_FRAGMENT_TOUCHED>, 1, 128, wgmma_chain_bytes(64, 0), nullptr,
           floats_raw(64 * 64), map, map, map);
}
