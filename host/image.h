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

// What a picture was in its file, where Pillow resizes it in another way because of that.
typedef enum {
    IMAGE_PLAIN,   // as the channels say
    IMAGE_INDEXED, // a palette, or one bit: by the nearest pixel only
    IMAGE_KEYED,   // alpha marks one transparent colour: the colours are resized without it
    IMAGE_INKS,    // four channels are CMYK
} ImageMode;
// Rows from the top, pixels from the left, channels interleaved, no padding: sample c of pixel
// (x,y) is data[((size_t)y * width + x) * channels + c]. channels: 1 grey, 2 grey + alpha, 3 RGB, 4
// RGBA (or CMYK). The struct owns data; an empty picture has data == NULL.
typedef struct {
    int width, height, channels;
    ImageMode mode;
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
// Pillow's convert("RGB"): grey is repeated, alpha is dropped without compositing, CMYK becomes
// r = max(0, k' - c k'/255) with k' = 255 - k.
Image image_to_rgb_new(const Image *image);
// The same with alpha laid over white: (c a + 255 (255 - a)) / 255, rounded to nearest.
Image image_on_white_new(const Image *image);
// Pillow's resize: the op image_resize, with alpha multiplied in before and divided out after (not
// for NEAREST), minding the mode, which the result keeps. Equal sizes give a copy. dev is any
// device: the CPU's to work beside a busy GPU.
Image image_resize_new(Device *dev, const Image *image, int width, int height, ResizeFilter filter);
// The width x height part whose top left corner is (left, top); all of it inside the picture.
Image image_crop_new(const Image *image, int left, int top, int width, int height);

#endif
