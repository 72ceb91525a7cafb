// fuzz_jpeg: JPEG files.
#include "fuzz.h"
#include "host/jpeg.h"

FUZZ(jpeg) {
    static const ImageLimits limits = {.max_side = 512, .max_pixels = 1 << 16, .max_scans = 10};
    Image image;
    int warnings = 0;
    const bool is_accepted = fuzz_accepts(jpeg_decode(data, size, &limits, &image, &warnings));
    CHECK(is_accepted == (image.data != NULL), "a picture, or none, without cause");
    fuzz_touch(image.data, is_accepted ? image_bytes(&image) : 0);
    image_free(&image);
    return is_accepted;
}
