// Image processors against the originals' own code (tools/dump_reference_processors.py): those that
// resize by Pillow byte for byte and bit for bit, those that resize tensors within one level.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "host/file.h"
#include "host/npz.h"
#include "host/processor_file.h"
#include "tests/check.h"
#include "tests/pictures.h"

// ---- Pillow's resize ----
typedef struct {
    char picture[100];
    int width, height;
    unsigned bytes, floats; // crc32
    bool is_refused;
} Want;

// True when all agrees.
static bool expect_same(const ProcessorConfig *config, const Want *want) {
    Image image = picture_named_new(want->picture);
    if (!image.data) {
        return false;
    }
    bool is_same = false;
    int w = 0, h = 0;
    const Error error = processor_size(config, image.width, image.height, &w, &h);
    if (want->is_refused) {
        EXPECT(error.code == EXIT_BAD_DATA, "gives %d x %d, but the original refuses", w, h);
        image_free(&image);
        return error.code == EXIT_BAD_DATA;
    }
    EXPECT(error.code == EXIT_OK && w == want->width && h == want->height,
           "%d x %d, want %d x %d; %s", w, h, want->width, want->height, error.text);
    if (error.code == EXIT_OK && w == want->width && h == want->height) {
        Image bytes = processor_image_new(config, check_device(), &image);
        const unsigned crc = (unsigned)crc32(0, bytes.data, (uInt)image_bytes(&bytes));
        EXPECT(crc == want->bytes, "bytes differ");
        const size_t n = image_bytes(&bytes);
        float *floats = xmalloc(n, sizeof *floats);
        processor_run(config, check_device(), &image, floats);
        const unsigned sum = (unsigned)crc32(0, (const Bytef *)floats, (uInt)(n * sizeof *floats));
        EXPECT(sum == want->floats, "floats differ");
        is_same = crc == want->bytes && sum == want->floats;
        free(floats);
        image_free(&bytes);
    }
    image_free(&image);
    return is_same;
}

// The line that tools/test_oracle.sh counts by.
static void tell(const char *name, int pictures, int equal) {
    if (pictures > 0) {
        printf("processor %s: %d pictures, %d differ\n", name, pictures, pictures - equal);
    }
}

TEST(processor_slow_reference) {
    FILE *file = fopen(check_fixture("processors_slow.txt"), "r");
    char line[2000], name[40] = "";
    ProcessorConfig config = {0};
    int count = 0, compared = 0, equal = 0;
    while (file && fgets(line, sizeof line, file)) {
        int at = 0;
        if (strncmp(line, "config ", 7) == 0) {
            tell(name, compared, equal);
            compared = equal = 0;
            sscanf(line, "config %39s %n", name, &at);
            const Error error = strncmp(line + at, "preset", 6) == 0
                                    ? error_none()
                                    : processor_parse(&config, line + at, strlen(line + at));
            EXPECT(error.code == EXIT_OK, "%s: %s", name, error.text);
            EXPECT(line[at] == '{' || processor_preset(name, &config), "no preset '%s'", name);
            // The release that wrote the file rounds up, later ones and the parser down.
            config.steps[config.step_count - 1].rounding = ROUND_CEIL;
            continue;
        }
        Want want = {.is_refused = strstr(line, " error") != NULL};
        const int read = sscanf(line, "%*s %99s %d %d %x %x", want.picture, &want.width,
                                &want.height, &want.bytes, &want.floats);
        if (line[0] != '#' && read >= 1) {
            EXPECT(read == 5 || want.is_refused, "bad line '%s'", line);
            count++;
            if (CASE("%s %s", name, want.picture)) {
                compared++;
                equal += expect_same(&config, &want);
            }
        }
    }
    tell(name, compared, equal);
    if (file) {
        fclose(file);
    }
    EXPECT(count >= 200, "only %d cases", count);
}

// ---- resize of tensors ----
static NpyArray load(const Npz *archive, const char *fmt, const char *name, int i) {
    char full[64];
    snprintf(full, sizeof full, fmt, name, i);
    NpyArray array = {0};
    const Error error = npz_load_new(&array, archive, full, 1 << 20);
    EXPECT(error.code == EXIT_OK, "%s: %s", full, error.text);
    return array;
}

// Differences between some rows of the results, added to *samples and *far.
static void compare_rows(const ProcessorConfig *config, const Image *image, const NpyArray *about,
                         const NpyArray *rows, int *samples, int *far) {
    const int width = (int)npy_number(about, 0), height = (int)npy_number(about, 1);
    int w = 0, h = 0;
    const Error error = processor_size(config, image->width, image->height, &w, &h);
    EXPECT(error.code == EXIT_OK && w == width && h == height, "%d x %d, want %d x %d", w, h,
           width, height);
    if (w != width || h != height) {
        return;
    }
    Image got = processor_image_new(config, check_device(), image);
    const size_t row = (size_t)w * 3;
    for (size_t i = 0; i < rows->count; i++) {
        const size_t y = (size_t)npy_number(about, 2 + i / row);
        *far += abs(got.data[y * row + i % row] - rows->data[i]) > 1;
    }
    *samples += (int)rows->count;
    image_free(&got);
}

// All 256 levels of each channel through scale and normalisation: equal to an ulp.
static void compare_levels(const ProcessorConfig *config, const NpyArray *want) {
    enum { SIDE = 224, CELL = 14 };
    static float out[3 * SIDE * SIDE];
    double got[3 * 256], wanted[3 * 256];
    Image image = image_new(SIDE, SIDE, 1);
    for (int i = 0; i < SIDE * SIDE; i++) {
        image.data[i] = (uint8_t)(i / SIDE / CELL * (SIDE / CELL) + i % SIDE / CELL);
    }
    processor_run(config, check_device(), &image, out);
    for (int i = 0; i < 3 * 256; i++) {
        const int c = i / 256, y = i % 256 / 16 * CELL, x = i % 16 * CELL;
        got[i] = out[(c * SIDE + y) * SIDE + x];
        wanted[i] = npy_number(want, (size_t)i);
    }
    expect_ulp("levels", got, wanted, 3 * 256, DT_F32, 1);
    image_free(&image);
}

TEST(processor_fast_reference) {
    FileBytes bytes;
    Npz archive;
    error_die("fixture",
              file_read_new(&bytes, check_fixture("processors_fast.npz"), (size_t)1 << 20));
    error_die("fixture", npz_open_new(&archive, bytes.data, bytes.size));
    NpyArray list = load(&archive, "%s", "pictures", 0);
    static const char *const names[] = {"clip", "qwen2vl", "pixtral"};
    for (size_t p = 0; p < sizeof names / sizeof *names; p++) {
        NpyArray text = load(&archive, "%s.config", names[p], 0);
        NpyArray levels = load(&archive, "%s.levels", names[p], 0);
        ProcessorConfig config = {0};
        const Error error = processor_parse(&config, text.data, text.bytes);
        EXPECT(error.code == EXIT_OK, "%s: %s", names[p], error.text);
        int samples = 0, far = 0, i = 0;
        const char *at = (const char *)list.data, *end = at + list.bytes;
        for (; error.code == EXIT_OK && at < end; i++) {
            char picture[100];
            const char *stop = memchr(at, '\n', (size_t)(end - at));
            stop = stop ? stop : end;
            snprintf(picture, sizeof picture, "%.*s", (int)(stop - at), at);
            at = stop + 1;
            Image image = {0};
            if (CASE("%s %s", names[p], picture) && (image = picture_named_new(picture)).data) {
                NpyArray about = load(&archive, "%s.%d.about", names[p], i);
                NpyArray rows = load(&archive, "%s.%d", names[p], i);
                compare_rows(&config, &image, &about, &rows, &samples, &far);
                npy_free(&about);
                npy_free(&rows);
                image_free(&image);
            }
        }
        if (CASE("%s levels", names[p])) {
            compare_levels(&config, &levels);
        }
        EXPECT(far <= samples / 1000, "%s: %d of %d samples differ by more than a level", names[p],
               far, samples);
        npy_free(&text);
        npy_free(&levels);
    }
    npy_free(&list);
    npz_free(&archive);
    file_bytes_free(&bytes);
}
