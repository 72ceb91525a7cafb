// PNG and JPEG against Pillow (tests/data/image_decode.txt), PngSuite's reference pixels, and
// damage.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "host/file.h"
#include "host/image.h"
#include "host/png.h"
#include "tests/check.h"

enum { FILE_LIMIT = 64 << 20 };

static FileBytes read_bytes(const char *path) {
    FileBytes bytes = {0};
    const Error error = file_read_new(&bytes, path, FILE_LIMIT);
    EXPECT(error.code == EXIT_OK, "%s: %s", path, error.text);
    return bytes;
}

static Error decode(const FileBytes *bytes, Image *out, int *warnings) {
    const ImageLimits limits = image_limits_default();
    return image_decode(bytes->data, bytes->size, &limits, out, warnings);
}

// One line, no control characters, with a remedy.
static void expect_message(const char *what, Error error) {
    EXPECT(error.code == EXIT_BAD_DATA, "%s: code %d", what, (int)error.code);
    EXPECT(strlen(error.text) > 10 && !strchr(error.text, '\n') && strchr(error.text, ';'),
           "%s: message '%s'", what, error.text);
}

// ---- against Pillow ----
// Where we knowingly differ from Pillow 9.4.
static const struct {
    const char *name, *why;
} exceptions[] = {
    {"grayscale_16x24_sampling2x2.png", "16-bit grey: Pillow clips at 255, we keep the high byte"},
    {"i_trns.png", "16-bit grey, as above"},
    {"bugfixes_invalid_palette_index.png", "an index beyond the palette has no meaning"},
    {"bugfixes_x_interlaced_chck.png", "wrong checksum: Pillow stops reading before it"},
    {"png_decompression_dos.png", "a text chunk we do not inflate"},
};

static bool is_exception(const char *path) {
    const char *name = strrchr(path, '/') + 1;
    for (size_t i = 0; i < sizeof exceptions / sizeof *exceptions; i++) {
        if (strcmp(name, exceptions[i].name) == 0) {
            return true;
        }
    }
    return false;
}

typedef struct {
    int equal, refused, mended, excepted;
} Tally;

// want_width 0: Pillow refuses the file; then an error or a counted warning will do.
static void compare_file(const char *path, int want_width, int want_height, uint32_t want_crc,
                         Tally *tally) {
    const char *full = check_data(path);
    if (!full) {
        return;
    }
    FileBytes bytes = read_bytes(full);
    Image image;
    int warnings;
    const Error error = decode(&bytes, &image, &warnings);
    if (error.code != EXIT_OK) {
        expect_message(path, error);
        EXPECT(want_width == 0 || is_exception(path), "%s: %s, but Pillow reads it", path,
               error.text);
        tally->refused++;
    } else if (is_exception(path)) {
        tally->excepted++;
    } else if (want_width == 0) {
        EXPECT(warnings > 0, "%s: Pillow refuses it, we do not even warn", path);
        tally->mended++;
    } else {
        Image rgb = image_to_rgb_new(&image);
        const uint32_t crc = (uint32_t)crc32(0, rgb.data, (uInt)image_bytes(&rgb));
        EXPECT(image.width == want_width && image.height == want_height && crc == want_crc,
               "%s: %dx%d crc %08x, Pillow %dx%d %08x", path, image.width, image.height, crc,
               want_width, want_height, want_crc);
        tally->equal++;
        image_free(&rgb);
    }
    image_free(&image);
    file_bytes_free(&bytes);
}

TEST(image_decode_equals_pillow) {
    check_time_limit(300); // 750 files, slow under a sanitizer
    static const char *const folders[] = {
        "images/jpeg/", "images/jpeg-corrupt/", "images/png-extra/", "medical/vqa-rad/",
        "medical/skin-ham10000/", "medical/breast-ultrasound/", "medical/covid-chestxray/",
        "medical/retina/"};
    FILE *file = fopen(check_fixture("image_decode.txt"), "r");
    for (size_t f = 0; file && f < sizeof folders / sizeof *folders; f++) {
        if (!CASE("%s", folders[f]) || !check_data(folders[f])) {
            continue;
        }
        rewind(file);
        char line[400], path[300];
        Tally tally = {0};
        while (fgets(line, sizeof line, file)) {
            int width = 0, height = 0;
            uint32_t crc = 0;
            const int fields = sscanf(line, "%299s %d %d %x", path, &width, &height, &crc);
            if (strncmp(path, folders[f], strlen(folders[f])) == 0) {
                EXPECT(fields == 4 || fields == 1, "fixture line '%s'", line);
                compare_file(path, width, height, crc, &tally);
            }
        }
        fprintf(stderr, "%s %d equal to Pillow, %d refused, %d mended, %d excepted\n", folders[f],
                tally.equal, tally.refused, tally.mended, tally.excepted);
        EXPECT(tally.equal + tally.refused + tally.mended > 0, "no file of %s", folders[f]);
    }
    if (file) {
        fclose(file);
    }
}

// The references beside the JPEG files come from another decoder: two levels apart at most.
TEST(image_jpeg_reference) {
    const char *folder = check_data("images/jpeg/reference");
    char **names;
    int count, compared = 0;
    if (!folder || file_list_new(&names, &count, folder).code != EXIT_OK) {
        return;
    }
    for (int i = 0; i < count; i++) {
        char *dot = strstr(names[i], ".jpg");
        if (!dot) {
            continue;
        }
        char path[1200];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        FileBytes jpeg = read_bytes(path);
        snprintf(path, sizeof path, "%s/%.*s.png", folder, (int)(dot - names[i]), names[i]);
        FileBytes png = read_bytes(path);
        Image image, reference;
        int warnings;
        EXPECT(decode(&jpeg, &image, &warnings).code == EXIT_OK, "%s", names[i]);
        EXPECT(decode(&png, &reference, &warnings).code == EXIT_OK, "%s", path);
        Image a = image_to_rgb_new(&image), b = image_to_rgb_new(&reference);
        EXPECT(a.width == b.width && a.height == b.height, "%s: size", names[i]);
        int worst = 0;
        for (size_t k = 0; k < image_bytes(&a); k++) {
            worst = abs(a.data[k] - b.data[k]) > worst ? abs(a.data[k] - b.data[k]) : worst;
        }
        EXPECT(worst <= 2, "%s: %d levels off", names[i], worst);
        compared++;
        image_free(&a);
        image_free(&b);
        image_free(&image);
        image_free(&reference);
        file_bytes_free(&jpeg);
        file_bytes_free(&png);
    }
    EXPECT(compared > 0, "no pair in %s", folder);
    file_list_free(names, count);
}

// ---- PngSuite ----
// Sample c (R, G, B, A) of pixel i of a picture of any form.
static int rgba_sample(const Image *image, size_t i, int c) {
    const int C = image->channels;
    const uint8_t *pixel = image->data + i * (size_t)C;
    return c < 3 ? pixel[C < 3 ? 0 : c] : C % 2 ? 255 : pixel[C - 1];
}

// The reference of a file is either 16 bits deep, to be met exactly, or 8 bits, within one level.
static void expect_suite_pixels(const char *name, const Image *image, const uint16_t *wide) {
    const size_t pixels = (size_t)image->width * (size_t)image->height;
    const int stem = (int)(strchr(name, '.') - name);
    const char *root = check_data("images/pngsuite/rgba");
    char path[1200];
    snprintf(path, sizeof path, "%s/%.*s.rgba16", root, stem, name);
    const bool is_deep = file_exists(path);
    if (!is_deep) {
        snprintf(path, sizeof path, "%s/%.*s.rgba8", root, stem, name);
    }
    FileBytes want = read_bytes(path);
    EXPECT(want.size == pixels * (is_deep ? 8 : 4), "'%s' has %zu bytes", path, want.size);
    size_t wrong = 0;
    for (size_t i = 0; i < pixels * 4 && want.size == pixels * (is_deep ? 8 : 4); i++) {
        const int got = rgba_sample(image, i / 4, (int)(i % 4));
        if (is_deep) {
            const int deep = want.data[2 * i] | want.data[2 * i + 1] << 8;
            wrong += wide[i] != deep || got != deep >> 8;
        } else {
            wrong += abs(got - want.data[i]) > 1 || wide[i] != 257 * got;
        }
    }
    EXPECT(wrong == 0, "%s: %zu samples differ from the reference", name, wrong);
    file_bytes_free(&want);
}

static void check_suite_file(const char *name) {
    char relative[300];
    snprintf(relative, sizeof relative, "images/pngsuite/png/%s", name);
    FileBytes bytes = read_bytes(check_data(relative));
    const ImageLimits limits = image_limits_default();
    Image image;
    uint16_t *wide;
    int warnings = 0, width, height;
    const Error error = png_decode(bytes.data, bytes.size, &limits, &image, &warnings);
    const Error deep =
        png_decode16(bytes.data, bytes.size, &limits, &width, &height, &wide, &warnings);
    if (name[0] == 'x') { // corrupt on purpose
        expect_message(name, error);
        expect_message(name, deep);
        EXPECT(!image.data && !wide, "%s: pixels after an error", name);
    } else {
        EXPECT(error.code == EXIT_OK && deep.code == EXIT_OK, "%s: %s", name, error.text);
        EXPECT(width == image.width && height == image.height, "%s: sizes", name);
        expect_suite_pixels(name, &image, wide);
    }
    free(wide);
    image_free(&image);
    file_bytes_free(&bytes);
}

TEST(image_pngsuite) {
    const char *folder = check_data("images/pngsuite/png");
    char **names;
    int count;
    if (!folder || file_list_new(&names, &count, folder).code != EXIT_OK) {
        return;
    }
    EXPECT(count > 0, "'%s' is empty", folder);
    for (int i = 0; i < count; i++) {
        if (strstr(names[i], ".png") && CASE("%s", names[i])) {
            check_suite_file(names[i]);
        }
    }
    file_list_free(names, count);
}

// ---- damage ----
static FileBytes copy_bytes(const FileBytes *from, size_t size) {
    uint8_t *data = malloc(size + 1); // exactly as many as told: ASan sees a byte too far
    memcpy(data, from->data, size < from->size ? size : from->size);
    return (FileBytes){.data = data, .size = size};
}

static const char *const sound[] = {"images/jpeg/pillow/hopper.jpg",
                                    "images/jpeg/reference/progressive3.jpg",
                                    "images/png-extra/pillow/hopper.png",
                                    "images/png-extra/image-png/pngsuite-extra_basi3p02_2.png"};

TEST(image_truncated) {
    for (size_t f = 0; f < sizeof sound / sizeof *sound; f++) {
        const char *path = CASE("%s", sound[f]) ? check_data(sound[f]) : NULL;
        if (!path) {
            continue;
        }
        FileBytes whole = read_bytes(path);
        const size_t step = whole.size / 150 + 1;
        for (size_t cut = 1; cut < whole.size; cut += step) {
            FileBytes part = copy_bytes(&whole, whole.size - cut);
            Image image;
            int warnings;
            const Error error = decode(&part, &image, &warnings);
            EXPECT(error.code != EXIT_OK || warnings > 0, "%zu bytes missing, not a word", cut);
            EXPECT((error.code == EXIT_OK) == (image.data != NULL), "%zu missing: picture", cut);
            image_free(&image);
            free((void *)part.data);
        }
        file_bytes_free(&whole);
    }
}

// Every flipped bit of a PNG is caught by a checksum; a JPEG has none, so there only survival
// counts.
TEST(image_bit_flips) {
    for (size_t f = 0; f < sizeof sound / sizeof *sound; f++) {
        const char *path = CASE("%s", sound[f]) ? check_data(sound[f]) : NULL;
        if (!path) {
            continue;
        }
        FileBytes whole = read_bytes(path);
        FileBytes copy = copy_bytes(&whole, whole.size);
        Rng rng = check_rng((uint32_t)f);
        for (int round = 0; round < 60; round++) {
            const uint32_t bit = rng_below(&rng, (uint32_t)whole.size * 8);
            uint8_t *byte = (uint8_t *)copy.data + bit / 8;
            *byte = (uint8_t)(*byte ^ (1u << bit % 8));
            Image image;
            int warnings;
            const Error error = decode(&copy, &image, &warnings);
            EXPECT(whole.data[0] != 0x89 || error.code != EXIT_OK || warnings > 0,
                   "bit %u flipped, not a word", bit);
            EXPECT((error.code == EXIT_OK) == (image.data != NULL), "bit %u: picture", bit);
            image_free(&image);
            *byte = (uint8_t)(*byte ^ (1u << bit % 8));
        }
        free((void *)copy.data);
        file_bytes_free(&whole);
    }
}

static void put32(uint8_t *to, uint32_t v) {
    for (int i = 0; i < 4; i++) {
        to[i] = (uint8_t)(v >> (24 - 8 * i));
    }
}

TEST(image_gigantic_header) {
    static const uint32_t sides[][2] = {{60000, 60000}, {32768, 32768}, {8192, 8193}, {32769, 1}};
    for (size_t s = 0; s < 4; s++) {
        const uint32_t width = sides[s][0], height = sides[s][1];
        Image small = image_new(4, 4, 3), out;
        int warnings;
        if (CASE("png %u x %u", width, height)) {
            size_t size;
            uint8_t *png = png_encode_new(&small, &size);
            put32(png + 16, width); // IHDR: signature 8, length 4, type 4
            put32(png + 20, height);
            put32(png + 29, (uint32_t)crc32(0, png + 12, 17));
            expect_message("png", decode(&(FileBytes){.data = png, .size = size}, &out, &warnings));
            free(png);
        }
        const char *path =
            width < 65536 && CASE("jpeg %u x %u", width, height) ? check_data(sound[0]) : NULL;
        if (path) {
            FileBytes jpeg = read_bytes(path);
            uint8_t *data = (uint8_t *)jpeg.data;
            size_t at = 2; // walk the segments to the frame header
            while (data[at + 1] != 0xC0) {
                at += 2 + (size_t)(data[at + 2] << 8 | data[at + 3]);
            }
            data[at + 5] = (uint8_t)(height >> 8);
            data[at + 6] = (uint8_t)height;
            data[at + 7] = (uint8_t)(width >> 8);
            data[at + 8] = (uint8_t)width;
            expect_message("jpeg", decode(&jpeg, &out, &warnings));
            file_bytes_free(&jpeg);
        }
        image_free(&small);
    }
}

// A picture inside the limits that its few bytes cannot possibly hold is refused before memory is
// taken.
TEST(image_png_too_few_bytes) {
    Image small = image_new(4, 4, 3), out;
    size_t size;
    int warnings;
    uint8_t *png = png_encode_new(&small, &size);
    put32(png + 16, 8000);
    put32(png + 20, 8000);
    put32(png + 29, (uint32_t)crc32(0, png + 12, 17));
    const Error error = decode(&(FileBytes){.data = png, .size = size}, &out, &warnings);
    expect_message("png", error);
    EXPECT(strstr(error.text, "cannot be in"), "'%s'", error.text);
    free(png);
    image_free(&small);
}

// A progressive file whose last scan is written over and over decodes slower and slower.
TEST(image_jpeg_scan_limit) {
    const char *path = check_data("images/jpeg/reference/mozilla_jpg-progressive.jpg");
    if (!path) {
        return;
    }
    FileBytes whole = read_bytes(path);
    size_t scan = whole.size;
    for (size_t i = 0; i + 1 < whole.size; i++) {
        if (whole.data[i] == 0xFF && whole.data[i + 1] == 0xDA) {
            scan = i;
        }
    }
    const size_t bytes = whole.size - 2 - scan; // up to the end marker
    for (int copies = 50; copies <= 1000; copies += 950) {
        if (!CASE("%d copies", copies)) {
            continue;
        }
        FileBytes bomb = copy_bytes(&whole, whole.size + (size_t)copies * bytes);
        uint8_t *to = (uint8_t *)bomb.data + whole.size - 2;
        for (int i = 0; i < copies; i++, to += bytes) {
            memcpy(to, whole.data + scan, bytes);
        }
        memcpy(to, "\xFF\xD9", 2);
        Image image;
        int warnings;
        const Error error = decode(&bomb, &image, &warnings);
        EXPECT((error.code == EXIT_OK) == (copies == 50), "code %d", (int)error.code);
        EXPECT(copies == 50 || strstr(error.text, "more than 100 scans"), "'%s'", error.text);
        image_free(&image);
        free((void *)bomb.data);
    }
    file_bytes_free(&whole);
}

TEST(image_other_formats) {
    static const struct {
        const char *bytes, *says;
    } files[] = {{"", "empty"},        {"GIF89a....", "GIF"},        {"<html><body>", "web page"},
                 {"BM......", "BMP"},  {"RIFF....WEBPVP8 ", "WebP"}, {"\xFF\xD8", "something else"},
                 {"II*\x08", "TIFF"},  {"\x89PN", "something else"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        Image image;
        int warnings;
        const FileBytes bytes = {.data = (const uint8_t *)files[i].bytes,
                                 .size = strlen(files[i].bytes)};
        const Error error = decode(&bytes, &image, &warnings);
        expect_message(files[i].says, error);
        EXPECT(strstr(error.text, files[i].says), "'%s' does not say '%s'", error.text,
               files[i].says);
    }
}

// DICOM files, some of which begin without their preamble, are refused in one line.
TEST(image_dicom_refused) {
    const char *folder = check_data("medical/dicom");
    char **names;
    int count, refused = 0, named = 0;
    if (!folder || file_list_new(&names, &count, folder).code != EXIT_OK) {
        return;
    }
    for (int i = 0; i < count; i++) {
        if (strstr(names[i], ".dcm")) {
            char path[1200];
            snprintf(path, sizeof path, "%s/%s", folder, names[i]);
            FileBytes bytes = read_bytes(path);
            Image image;
            int warnings;
            const Error error = decode(&bytes, &image, &warnings);
            expect_message(names[i], error);
            named += strstr(error.text, "DICOM") != NULL;
            refused++;
            file_bytes_free(&bytes);
        }
    }
    EXPECT(refused > 0 && 2 * named > refused, "%d of %d files are called DICOM", named, refused);
    file_list_free(names, count);
}

// ---- writing and changing ----
TEST(image_png_round_trip) {
    Rng rng = check_rng(0);
    for (int C = 1; C <= 4; C++) {
        Image image = image_new(1 + 13 * C, 29 - 7 * C, C), back;
        for (size_t i = 0; i < image_bytes(&image); i++) {
            image.data[i] = (uint8_t)rng_below(&rng, 256);
        }
        size_t size;
        int warnings;
        uint8_t *png = png_encode_new(&image, &size);
        const Error error = decode(&(FileBytes){.data = png, .size = size}, &back, &warnings);
        EXPECT(error.code == EXIT_OK && warnings == 0, "C=%d: %s", C, error.text);
        EXPECT(image_hash(&image) == image_hash(&back), "C=%d: other pixels came back", C);
        image_free(&back);
        image_free(&image);
        free(png);
    }
}

TEST(image_crop_and_rgb) {
    Image image = image_new(5, 4, 2);
    for (size_t i = 0; i < image_bytes(&image); i++) {
        image.data[i] = (uint8_t)i;
    }
    Image part = image_crop_new(&image, 2, 1, 3, 2), rgb = image_to_rgb_new(&part);
    EXPECT(part.data[0] == 14 && part.data[6] == 24, "pixels %d and %d", part.data[0],
           part.data[6]);
    EXPECT(rgb.data[0] == 14 && rgb.data[2] == 14 && rgb.data[3] == 16, "grey is repeated");
    image_free(&rgb);
    image_free(&part);
    image_free(&image);
}
