// image: pictures in memory; see image.h.
#include "image.h"

#include <stdlib.h>
#include <string.h>

ImageLimits image_limits_default(void) {
    return (ImageLimits){.max_side = 32768, .max_pixels = (size_t)64 << 20, .max_scans = 500};
}

// ---- memory ----
Image image_new(int width, int height, int channels) {
    CHECK(width >= 1 && height >= 1 && channels >= 1 && channels <= 4, "%d x %d x %d", width, height,
          channels);
    Image image = {.width = width, .height = height, .channels = channels};
    image.data = xcalloc((size_t)width * (size_t)height, (size_t)channels);
    return image;
}

size_t image_bytes(const Image *image) {
    return (size_t)image->width * (size_t)image->height * (size_t)image->channels;
}

Image image_copy_new(const Image *image) {
    Image copy = image_new(image->width, image->height, image->channels);
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
