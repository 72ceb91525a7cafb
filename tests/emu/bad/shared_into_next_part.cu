// expects: out of bounds: reads 4 bytes of shared first
// Mistake: the first part is too short and reads run into the second.
#include "tests/emu/bad.h"

static __global__ void kernel(float *out) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, first, float, 32, 16);
    SMEM_TAKE(carver, second, float, 32, 16);
    first[threadIdx.x] = 1;
    second[threadIdx.x] = 2;
    __syncthreads();
    out[threadIdx.x] = first[threadIdx.x + 4];
}

BAD(shared_into_next_part) {
    LAUNCH(kernel, 1, 32, 256, nullptr, floats_new(32));
}
