// fuzz_png: PNG files, as they are and with the CRC of every chunk mended: a mutation hardly ever
// hits the right one, and nothing behind libpng's check would be reached.
#include <stdlib.h>
#include <zlib.h>

#include "fuzz.h"
#include "host/png.h"

static const ImageLimits limits = {.max_side = 512, .max_pixels = 1 << 16, .max_scans = 10};

static bool decode(const uint8_t *data, size_t size) {
    Image image;
    int warnings = 0, width, height;
    const bool is_accepted = fuzz_accepts(png_decode(data, size, &limits, &image, &warnings));
    CHECK(is_accepted == (image.data != NULL), "a picture, or none, without cause");
    fuzz_touch(image.data, is_accepted ? image_bytes(&image) : 0);
    image_free(&image);
    uint16_t *deep = NULL;
    if (fuzz_accepts(png_decode16(data, size, &limits, &width, &height, &deep, &warnings))) {
        fuzz_touch(deep, (size_t)width * (size_t)height * 8);
        free(deep);
    }
    return is_accepted;
}

static uint32_t read32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

FUZZ(png) {
    const bool is_accepted = decode(data, size);
    uint8_t *copy = xmalloc(size + 1, 1);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    // A chunk: length, type, so many bytes, CRC of type and bytes.
    for (size_t at = 8; at + 12 <= size;) {
        const size_t length = read32(copy + at);
        if (length > size - at - 12) {
            break;
        }
        const uint32_t crc = (uint32_t)crc32(0, copy + at + 4, (uInt)length + 4);
        for (int i = 0; i < 4; i++) {
            copy[at + 8 + length + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        }
        at += 12 + length;
    }
    decode(copy, size);
    free(copy);
    return is_accepted;
}
