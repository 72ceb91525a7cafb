// image_resize: Pillow's Image.resize on 8-bit images, bit for bit.
//
// Output pixel i of an axis of n pixels made from m, all in double (filter radius R: bilinear 1,
// bicubic 2):
//   scale = m / n   widen = max(scale, 1)   centre = (i + 0.5) scale
//   first = max(0, trunc(centre - R widen + 0.5))   last = min(m, trunc(centre + R widen + 0.5))
//   w[k] = f((k - centre + 0.5) / widen), k = first .. last-1, over their sum, times 2^22, rounded
//   out[i] = clamp((2^21 + sum_k w[k] inp[k]) >> 22, 0, 255)
// Source: the behaviour of Pillow 9.4's Image.resize, which the tests hold it to; P. Heckbert 1989,
// "Fundamentals of texture mapping", for filters that widen.
#ifndef JOMED_KERNELS_IMAGE_RESIZE_H
#define JOMED_KERNELS_IMAGE_RESIZE_H

#include <stdint.h>

#include "device.h"

typedef enum { RESIZE_NEAREST, RESIZE_BILINEAR, RESIZE_BICUBIC } ResizeFilter;

#ifdef __cplusplus
extern "C" {
#endif

// out: (outH,outW,C) u8   inp: (H,W,C) u8   scratch: image_resize_scratch_bytes(...)
// Bicubic has a = -0.5. The horizontal pass comes first and rounds to 8 bits; a pass whose axis
// keeps its size is skipped. NEAREST starts at scale / 2 and adds scale pixel by pixel, truncating
// each. Alpha is the caller's (premultiply before, divide after: image_resize_new of host/image.h).
// No aliasing. Not followed: Pillow 13 takes the vertical pass first where that is cheaper (a
// 300x400 picture to 224x224, say), which changes about a quarter of the samples of noise; 9.4 to
// 11.1 and torchvision's tensors do not. Agreement: exact.
typedef void image_resize_fn(Device *dev, uint8_t *out, const uint8_t *inp, void *scratch, int H,
                             int W, int C, int outH, int outW, ResizeFilter filter);
size_t image_resize_scratch_bytes(int H, int W, int C, int outH, int outW, ResizeFilter filter);

image_resize_fn image_resize_cpu, image_resize_cuda, image_resize_emu;

#ifdef __cplusplus
}
#endif
#endif
