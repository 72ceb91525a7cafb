// patch_embed: images to rows of patch pixels on CUDA; see patch_embed.h.
//
// Outputs are written in their order, neighbours by neighbouring threads; reads are runs of P
// pixels. All memory, 4 bytes in and 2 or 4 out, if the divisions that find a place are shared:
// version 2 takes 16 bytes of the output at a time, which lie in one run where P is a multiple of
// their number (P = 14 of Qwen2-VL's patches is not; P = 16 and 32 are).
//
//   version  idea                           shape  time                  % of peak bandwidth
//   kernel1  one element per thread         -      not yet run on a GPU  -
//   kernel2  16 bytes per thread and turn   -      not yet run on a GPU  -
#include "patch_embed.h"

#include "cuda_common.cuh"

static const int BLOCK = 256;

typedef struct {
    int Cin, Ph, Pw, P, frames, merge;
} Patches;

// The pixel that element i of the output shows.
static __device__ inline size_t source_of(const Patches &s, size_t i) {
    const int per_channel = s.frames * s.P * s.P, width = s.Cin * per_channel;
    const int patches = s.Ph * s.Pw, cell = s.merge * s.merge, cells_wide = s.Pw / s.merge;
    const size_t row = i / width, b = row / patches;
    const int inside_row = (int)(i % width), c = inside_row / per_channel;
    const int y = inside_row / s.P % s.P, x = inside_row % s.P;
    const int patch = (int)(row % patches), inside = patch % cell;
    const int py = patch / cell / cells_wide * s.merge + inside / s.merge;
    const int px = patch / cell % cells_wide * s.merge + inside % s.merge;
    const size_t line = (b * s.Cin + c) * s.Ph * s.P + (size_t)py * s.P + y;
    return line * s.Pw * s.P + (size_t)px * s.P + x;
}

// Launch of both: any grid, BLOCK threads. No shared memory.
template <typename T>
static __global__ void patch_unfold_kernel1(T *out, const float *pixels, Patches s, size_t n) {
    GRID_STRIDE(i, n) { out[i] = from_float<T>(pixels[source_of(s, i)]); }
}

// n packs; P is a multiple of their length, out and pixels lie at multiples of 16 bytes.
template <typename T>
static __global__ void patch_unfold_kernel2(T *out, const float *pixels, Patches s, size_t n) {
    const int E = Pack<T>::N;
    GRID_STRIDE(i, n) {
        const float *from = pixels + source_of(s, i * E);
        Pack<T> run;
        UNROLL
        for (int quad = 0; quad < E; quad += 4) {
            const Pack<float> four = pack_load(from + quad);
            UNROLL
            for (int k = 0; k < 4; k++) {
                run.at[quad + k] = four.at[k];
            }
        }
        pack_store(out + i * E, run);
    }
}

template <typename T>
static void launch(Device *dev, T *out, const float *pixels, const Patches &s, size_t n) {
    const int E = Pack<T>::N;
    if (s.P % E == 0 && is_packable(out) && is_packable(pixels)) {
        LAUNCH((patch_unfold_kernel2<T>), grid_for(n / E, BLOCK), BLOCK, 0, device_stream(dev), out,
               pixels, s, n / E);
    } else {
        LAUNCH((patch_unfold_kernel1<T>), grid_for(n, BLOCK), BLOCK, 0, device_stream(dev), out,
               pixels, s, n);
    }
}

CUDA_OP(patch_unfold)(Device *dev, DType t, void *out, const float *pixels, int B, int Cin, int Ph,
                      int Pw, int P, int frames, int merge) {
    CHECK_POINTERS(patch_unfold, out, pixels);
    CHECK(Ph % merge == 0 && Pw % merge == 0, "Ph=%d Pw=%d merge=%d", Ph, Pw, merge);
    const Patches s = {Cin, Ph, Pw, P, frames, merge};
    const size_t n = (size_t)B * Ph * Pw * Cin * frames * P * P;
    FOR_DTYPE(t, T, launch(dev, (T *)out, pixels, s, n));
}
