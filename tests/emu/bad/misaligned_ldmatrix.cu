// expects: lane 0 gives address
// Mistake: the rows begin 8 bytes too late.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    SMEM_STATIC(tile, uint4, [33]);
    tile[threadIdx.x] = make_uint4(0, 0, 0, 0);
    __syncthreads();
    uint32_t a[4];
    ldmatrix_x4(a, smem_u32(tile) + 16 * threadIdx.x + 8);
    out[threadIdx.x] = __uint_as_float(a[0]);
}

BAD(misaligned_ldmatrix) {
    LAUNCH(kernel, 1, 32, 0, nullptr, floats_new(32));
}
