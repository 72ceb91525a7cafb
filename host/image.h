// image: 8-bit pictures in memory, and where they come from.
//
// A file's format is told by its first bytes, never by its name. No EXIF orientation is applied and
// no gamma or colour profile either: the models were trained on what Pillow hands out, and so are
// we.
#ifndef JOMED_HOST_IMAGE_H
#define JOMED_HOST_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base.h"
#include "kernels/image_resize.h"

// Rows from the top, pixels from the left, channels interleaved, no padding: sample c of pixel
// (x,y) is data[((size_t)y * width + x) * channels + c]. channels: 1 grey, 2 grey + alpha, 3 RGB, 4
// RGBA. The struct owns data; an empty picture has data == NULL.
typedef struct {
    int width, height, channels;
    uint8_t *data;
} Image;

// Zero-filled. Sizes >= 1, channels 1..4.
Image image_new(int width, int height, int channels);
Image image_copy_new(const Image *image);
void image_free(Image *image); // an empty one too; leaves it empty
size_t image_bytes(const Image *image);
// XXH64 of size, channels and pixels.
uint64_t image_hash(const Image *image);

// What a header may announce before a byte is allocated.
typedef struct {
    int max_side;      // width and height each
    size_t max_pixels; // width * height
    int max_scans;     // of a progressive JPEG
} ImageLimits;
ImageLimits image_limits_default(void); // 32768, 64 Mi, 100 (encoders write about ten)

// ---- files ----
// Decodes a PNG or JPEG (host/png.h, host/jpeg.h say to what). On error *out is empty and the text
// names what the bytes look like instead. *warnings counts what the decoder bridged (0 for a sound
// file).
Error image_decode(const void *bytes, size_t size, const ImageLimits *limits, Image *out,
                   int *warnings);

// ---- changing one ----
// Pillow's convert("RGB"): grey is repeated, alpha is dropped without compositing.
Image image_to_rgb_new(const Image *image);
// Pillow's resize: the op image_resize, with alpha multiplied in before and divided out after (not
// for NEAREST). Equal sizes give a copy. dev is any device: the CPU's to work beside a busy GPU.
Image image_resize_new(Device *dev, const Image *image, int width, int height, ResizeFilter filter);
// The width x height part whose top left corner is (left, top); all of it inside the picture.
Image image_crop_new(const Image *image, int left, int top, int width, int height);

#endif
