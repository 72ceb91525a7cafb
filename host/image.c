// image: pictures in memory; see image.h.
#include "image.h"

#include <stdlib.h>
#include <string.h>

#include "jpeg.h"
#include "kernels/ops.h"
#include "png.h"

ImageLimits image_limits_default(void) {
    return (ImageLimits){.max_side = 32768, .max_pixels = (size_t)64 << 20, .max_scans = 100};
}

// ---- memory ----
Image image_new(int width, int height, int channels) {
    CHECK(width >= 1 && height >= 1 && channels >= 1 && channels <= 4, "%d x %d x %d", width,
          height, channels);
    Image image = {.width = width, .height = height, .channels = channels};
    image.data = xcalloc((size_t)width * (size_t)height, (size_t)channels);
    return image;
}

size_t image_bytes(const Image *image) {
    return (size_t)image->width * (size_t)image->height * (size_t)image->channels;
}

Image image_copy_new(const Image *image) {
    Image copy = image_new(image->width, image->height, image->channels);
    copy.mode = image->mode;
    memcpy(copy.data, image->data, image_bytes(image));
    return copy;
}

void image_free(Image *image) {
    free(image->data);
    *image = (Image){0};
}

uint64_t image_hash(const Image *image) {
    const int32_t shape[3] = {image->width, image->height, image->channels};
    return xxh64(image->data, image_bytes(image), xxh64(shape, sizeof shape, 0));
}

// ---- files ----
// What a file that is no picture of ours most likely is, by its first bytes.
static const char *looks_like(const uint8_t *bytes, size_t size) {
    static const struct {
        size_t at;
        const char *magic, *name;
    } known[] = {{0, "GIF8", "a GIF"},       {0, "BM", "a BMP"},     {0, "II*", "a TIFF"},
                 {0, "MM", "a TIFF"},        {8, "WEBP", "a WebP"},  {128, "DICM", "a DICOM file"},
                 {0, "<", "a web page"},     {0, "%PDF", "a PDF"},   {0, "version https://git-lfs",
                                                                      "a Git LFS pointer"}};
    if (size == 0) {
        return "an empty file";
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const size_t n = strlen(known[i].magic);
        if (size >= known[i].at + n && memcmp(bytes + known[i].at, known[i].magic, n) == 0) {
            return known[i].name;
        }
    }
    return "something else";
}

Error image_decode(const void *bytes, size_t size, const ImageLimits *limits, Image *out,
                   int *warnings) {
    *warnings = 0;
    if (size >= 4 && memcmp(bytes, "\x89PNG", 4) == 0) {
        return png_decode(bytes, size, limits, out, warnings);
    }
    if (size >= 3 && memcmp(bytes, "\xFF\xD8\xFF", 3) == 0) {
        return jpeg_decode(bytes, size, limits, out, warnings);
    }
    *out = (Image){0};
    return error_at(EXIT_BAD_DATA, 0, "neither png nor jpeg but %s; convert it",
                    looks_like(bytes, size));
}

// ---- changing one ----
// a * b / 255, rounded to nearest.
static unsigned scale255(unsigned a, unsigned b) {
    const unsigned x = a * b + 128;
    return (x + (x >> 8)) >> 8;
}

static Image colours_new(const Image *image, bool is_on_white) {
    if (image->channels == 3) {
        Image copy = image_copy_new(image);
        copy.mode = IMAGE_PLAIN;
        return copy;
    }
    Image out = image_new(image->width, image->height, 3);
    const size_t pixels = (size_t)image->width * (size_t)image->height;
    const size_t C = (size_t)image->channels;
    const bool has_alpha = is_on_white && C % 2 == 0 && image->mode != IMAGE_INKS;
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t *from = image->data + i * C;
        for (size_t c = 0; c < 3; c++) {
            unsigned v = from[C < 3 ? 0 : c];
            if (image->mode == IMAGE_INKS) {
                const unsigned light = 255u - from[3], dark = scale255(v, light);
                v = light > dark ? light - dark : 0;
            } else if (has_alpha) { // 255 - (255 - v) a / 255: the same, rounded the same way
                v = 255u - scale255(255u - v, from[C - 1]);
            }
            out.data[3 * i + c] = (uint8_t)v;
        }
    }
    return out;
}

Image image_to_rgb_new(const Image *image) { return colours_new(image, false); }
Image image_on_white_new(const Image *image) { return colours_new(image, true); }

// Colours times alpha / 255 and back, with Pillow's roundings: to nearest on the way in, down on
// the way out; alpha 0 and 255 leave the colours alone.
static void multiply_alpha(Image *image) {
    const size_t C = (size_t)image->channels, bytes = image_bytes(image);
    for (size_t i = 0; i < bytes; i += C) {
        uint8_t *pixel = image->data + i;
        for (size_t c = 0; c < C - 1; c++) {
            pixel[c] = (uint8_t)scale255(pixel[c], pixel[C - 1]);
        }
    }
}

static void divide_alpha(Image *image) {
    const size_t C = (size_t)image->channels, bytes = image_bytes(image);
    for (size_t i = 0; i < bytes; i += C) {
        uint8_t *pixel = image->data + i;
        const unsigned alpha = pixel[C - 1];
        for (size_t c = 0; c < C - 1 && alpha != 0 && alpha != 255; c++) {
            const unsigned colour = 255 * (unsigned)pixel[c] / alpha;
            pixel[c] = (uint8_t)(colour > 255 ? 255 : colour);
        }
    }
}

// The op between pictures on the host; a device with memory of its own gets copies.
static void resize(Device *dev, Image *out, const Image *inp, ResizeFilter filter) {
    const int H = inp->height, W = inp->width, C = inp->channels;
    const bool is_host = device_kind(dev) == DEVICE_CPU;
    void *scratch = device_alloc(
        dev, image_resize_scratch_bytes(H, W, C, out->height, out->width, filter),
        "resize scratch");
    void *from = inp->data, *to = out->data;
    if (!is_host) {
        from = device_alloc(dev, image_bytes(inp), "picture");
        to = device_alloc(dev, image_bytes(out), "resized picture");
        device_copy_in(dev, from, inp->data, image_bytes(inp));
    }
    device_ops(dev)->image_resize(dev, to, from, scratch, H, W, C, out->height, out->width, filter);
    if (!is_host) {
        device_copy_out(dev, out->data, to, image_bytes(out));
        device_release(dev, to);
        device_release(dev, from);
    }
    device_release(dev, scratch);
}

Image image_resize_new(Device *dev, const Image *image, int width, int height,
                       ResizeFilter filter) {
    if (width == image->width && height == image->height) {
        return image_copy_new(image);
    }
    Image out = image_new(width, height, image->channels);
    out.mode = image->mode;
    filter = image->mode == IMAGE_INDEXED ? RESIZE_NEAREST : filter;
    if (filter == RESIZE_NEAREST || image->channels % 2 == 1 || image->mode != IMAGE_PLAIN) {
        resize(dev, &out, image, filter);
    } else {
        Image source = image_copy_new(image);
        multiply_alpha(&source);
        resize(dev, &out, &source, filter);
        divide_alpha(&out);
        image_free(&source);
    }
    return out;
}

Image image_crop_new(const Image *image, int left, int top, int width, int height) {
    CHECK(left >= 0 && top >= 0 && width <= image->width - left && height <= image->height - top,
          "%d x %d at (%d,%d) of %d x %d", width, height, left, top, image->width, image->height);
    Image out = image_new(width, height, image->channels);
    out.mode = image->mode;
    const size_t row = (size_t)width * (size_t)image->channels;
    for (int y = 0; y < height; y++) {
        const size_t from = ((size_t)(top + y) * (size_t)image->width + (size_t)left) *
                            (size_t)image->channels;
        memcpy(out.data + (size_t)y * row, image->data + from, row);
    }
    return out;
}
