// pictures: see pictures.h.
#include "tests/pictures.h"

#include <stdio.h>

#include "host/file.h"
#include "tests/check.h"

enum { FILE_LIMIT = 1 << 24 };

void picture_noise(uint8_t *data, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; i++) {
        uint32_t x = ((uint32_t)i + seed) * 2654435761u;
        x ^= x >> 15;
        x *= 0x85EBCA6Bu;
        x ^= x >> 13;
        data[i] = (uint8_t)(x >> 24);
    }
}

Image picture_bands_new(int channels, int width, int height) {
    Image image = image_new(width, height, channels);
    const size_t n = image_bytes(&image);
    picture_noise(image.data, n, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        const int c = (int)(i % (size_t)channels), pixel = (int)(i / (size_t)channels);
        const int x = pixel % width, y = pixel / width;
        const int level = (x * 3 + y * 5 + c * 40 + (x / 16 + y / 16) * 90) % 192;
        image.data[i] = (uint8_t)(level + image.data[i] / 4);
    }
    return image;
}

Image picture_named_new(const char *name) {
    int channels, width, height, warnings;
    if (sscanf(name, "%dx%dx%d", &channels, &width, &height) == 3) {
        return picture_bands_new(channels, width, height);
    }
    Image image = {0};
    const char *path = check_data(name);
    if (path) {
        FileBytes bytes = {0};
        const ImageLimits limits = image_limits_default();
        Error error = file_read_new(&bytes, path, FILE_LIMIT);
        if (error.code == EXIT_OK) {
            error = image_decode(bytes.data, bytes.size, &limits, &image, &warnings);
        }
        EXPECT(error.code == EXIT_OK, "%s: %s", name, error.text);
        file_bytes_free(&bytes);
    }
    return image;
}
