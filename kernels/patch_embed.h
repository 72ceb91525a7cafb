// patch_embed: images to rows of patch pixels; the convolution with stride = kernel is then
// matmul_fwd.
#ifndef JOMED_KERNELS_PATCH_EMBED_H
#define JOMED_KERNELS_PATCH_EMBED_H

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

// out[row, ((c * frames + f) * P + y) * P + x] = pixels[b, c, py * P + y, px * P + x]   for every f
//   merge = 1: rows run row-major over (b, py, px). merge = m > 1: patches of an m x m cell are
//   adjacent, row-major inside the cell, cells row-major (Qwen2-VL merge order, m = 2).
//   frames = 2 repeats a still image in time, as Qwen2-VL's 3-D convolution wants; else 1.
// out: (B * Ph * Pw, Cin * frames * P * P) t   pixels: (B,Cin,Ph*P,Pw*P) f32
// Ph and Pw must be multiples of merge. Agreement: exact after one rounding. No backward: pixels
// are data.
typedef void patch_unfold_fn(Device *dev, DType t, void *out, const float *pixels, int B, int Cin,
                             int Ph, int Pw, int P, int frames, int merge);

patch_unfold_fn patch_unfold_cpu, patch_unfold_cuda, patch_unfold_emu;

#ifdef __cplusplus
}
#endif
#endif
