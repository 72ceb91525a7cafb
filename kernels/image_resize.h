// image_resize: Pillow's Image.resize on 8-bit images, bit for bit.
// Source: Pillow, documented behaviour of Image.resize; the arithmetic is in the README's reading list.
#ifndef JOMED_KERNELS_IMAGE_RESIZE_H
#define JOMED_KERNELS_IMAGE_RESIZE_H

#include <stdint.h>

#include "device.h"

typedef enum { RESIZE_NEAREST, RESIZE_BILINEAR, RESIZE_BICUBIC } ResizeFilter;

#ifdef __cplusplus
extern "C" {
#endif

// out: (outH,outW,C) u8   inp: (H,W,C) u8   scratch: image_resize_scratch_bytes(...)
// Antialiased (the kernel widens by the scale on the way down), bicubic a = -0.5, weights in double
// turned into integers of 22 fractional bits, horizontal pass first into 8 bits, a pass whose axis
// keeps its size is skipped, NEAREST by cumulative addition of the step. Alpha is the caller's
// (premultiply before, divide after). Agreement: exact.
typedef void image_resize_fn(Device *dev, uint8_t *out, const uint8_t *inp, void *scratch, int H,
                             int W, int C, int outH, int outW, ResizeFilter filter);
size_t image_resize_scratch_bytes(int H, int W, int C, int outH, int outW, ResizeFilter filter);

image_resize_fn image_resize_cpu, image_resize_cuda, image_resize_emu;

#ifdef __cplusplus
}
#endif
#endif
