// patch_embed: images to rows of patch pixels on CUDA; see patch_embed.h.
//
// One thread per element of the output, which writes neighbours together; reads are runs of P.
//
//   version  idea                    shape  time                  % of peak bandwidth
//   kernel1  one element per thread  -      not yet run on a GPU  -
#include "patch_embed.h"

#include "cuda_common.cuh"

// Launch: any grid, BLOCK threads. No shared memory.
static const int BLOCK = 256;

typedef struct {
    int Cin, Ph, Pw, P, frames, merge;
} Patches;

template <typename T>
static __global__ void patch_unfold_kernel1(T *out, const float *pixels, Patches s, size_t n) {
    const int per_channel = s.frames * s.P * s.P, width = s.Cin * per_channel;
    const int patches = s.Ph * s.Pw, cell = s.merge * s.merge, cells_wide = s.Pw / s.merge;
    GRID_STRIDE(i, n) {
        const size_t row = i / width, b = row / patches;
        const int inside_row = (int)(i % width), c = inside_row / per_channel;
        const int y = inside_row / s.P % s.P, x = inside_row % s.P;
        const int patch = (int)(row % patches), inside = patch % cell;
        const int py = patch / cell / cells_wide * s.merge + inside / s.merge;
        const int px = patch / cell % cells_wide * s.merge + inside % s.merge;
        const size_t line = (b * s.Cin + c) * s.Ph * s.P + (size_t)py * s.P + y;
        out[i] = from_float<T>(pixels[line * s.Pw * s.P + (size_t)px * s.P + x]);
    }
}

CUDA_OP(patch_unfold)(Device *dev, DType t, void *out, const float *pixels, int B, int Cin, int Ph,
                      int Pw, int P, int frames, int merge) {
    CHECK_POINTERS(patch_unfold, out, pixels);
    CHECK(Ph % merge == 0 && Pw % merge == 0, "Ph=%d Pw=%d merge=%d", Ph, Pw, merge);
    const Patches s = {Cin, Ph, Pw, P, frames, merge};
    const size_t n = (size_t)B * Ph * Pw * Cin * frames * P * P;
    FOR_DTYPE(t, T, LAUNCH((patch_unfold_kernel1<T>), grid_for(n, BLOCK), BLOCK, 0,
                           device_stream(dev), (T *)out, pixels, s, n));
}
