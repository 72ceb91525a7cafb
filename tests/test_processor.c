// The image processor: sizes by the rules of the originals, pixels by Pillow's.
#define _POSIX_C_SOURCE 200809L // strtok_r
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/processor.h"
#include "tests/check.h"

static ProcessorConfig preset(const char *name) {
    ProcessorConfig config = {0};
    EXPECT(processor_preset(name, &config), "no preset '%s'", name);
    return config;
}

static void expect_size(const char *what, const ProcessorConfig *config, int w, int h, int want_w,
                        int want_h) {
    int got_w = 0, got_h = 0;
    const Error error = processor_size(config, w, h, &got_w, &got_h);
    EXPECT(error.code == EXIT_OK && got_w == want_w && got_h == want_h,
           "%s: %d x %d (w x h) gives %d x %d, want %d x %d %s", what, w, h, got_w, got_h, want_w,
           want_h, error.text);
}

TEST(processor_sizes_clip) {
    ProcessorConfig config = preset("clip");
    expect_size("crop", &config, 1024, 842, 224, 224);
    config.step_count = 1; // before the crop
    expect_size("shortest", &config, 401, 300, 299, 224);
    expect_size("shortest", &config, 300, 401, 224, 299);
    expect_size("equal sides", &config, 77, 77, 224, 224);
    expect_size("already there", &config, 224, 500, 224, 500);
    expect_size("truncated", &config, 1024, 1307, 224, 285);
}

// height, width -> height, width of the model's own rule; then with sides clamped first.
TEST(processor_sizes_qwen2vl) {
    static const int sizes[][6] = {
        {512, 512, 504, 504, 504, 504},         {1080, 1920, 1092, 1932, 1092, 1932},
        {70, 70, 56, 56, 56, 56},               {42, 98, 56, 112, 56, 112},
        {6000, 4000, 4368, 2912, 4368, 2912},   {20, 20, 56, 56, 56, 56},
        {14, 2000, 28, 672, 28, 1988},          {561, 278, 560, 280, 560, 280}};
    ProcessorConfig config = preset("qwen2vl");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int *s = sizes[i];
        config.steps[0].kind = STEP_MULTIPLE;
        expect_size("smart_resize", &config, s[1], s[0], s[3], s[2]);
        config.steps[0].kind = STEP_MULTIPLE_LEAST;
        expect_size("clamped", &config, s[1], s[0], s[5], s[4]);
    }
    config.steps[0].kind = STEP_MULTIPLE;
    config.steps[0].max_pixels = 1003520; // the class default: grid 70 x 70 of 14 pixels
    expect_size("class default", &config, 1024, 1024, 980, 980);
    int w, h;
    const Error error = processor_size(&config, 6000, 20, &w, &h);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "6000 x 20"), "'%s'", error.text);
}

TEST(processor_sizes_pixtral) {
    // width, height -> pixels, as the tests of mistral-common have them (rounding half to even).
    static const int vendor[][5] = {
        {1024, 200, 311, 208, 320},    {1024, 300, 212, 304, 224},   {1024, 251, 1374, 192, 1024},
        {1024, 1475, 477, 1024, 336},  {1024, 1344, 1544, 896, 1024}, {1024, 2133, 3422, 640, 1024},
        {128, 4, 4, 16, 16},           {128, 16, 16, 16, 16},        {128, 128, 128, 128, 128},
        {128, 512, 512, 128, 128},     {128, 2048, 2048, 128, 128},  {128, 4, 2, 16, 16},
        {128, 8, 16, 16, 16},          {128, 128, 64, 128, 64},      {128, 512, 1024, 64, 128}};
    ProcessorConfig config = preset("pixtral");
    config.steps[0].rounding = ROUND_HALF_EVEN;
    for (size_t i = 0; i < sizeof vendor / sizeof *vendor; i++) {
        const int *s = vendor[i];
        config.steps[0].max_side = s[0];
        expect_size("vendor", &config, s[1], s[2], s[3], s[4]);
    }
    // height, width -> height by floor, by ceil, by half-even, width, tokens rows * (cols + 1) by
    // floor.
    static const int sizes[][7] = {{512, 512, 512, 512, 512, 512, 1056},
                                   {1500, 2000, 768, 768, 768, 1024, 3120},
                                   {100, 37, 112, 112, 112, 48, 28},
                                   {1008, 1500, 688, 704, 688, 1024, 2795},
                                   {1009, 1500, 688, 704, 704, 1024, 2795},
                                   {500, 316, 512, 512, 512, 320, 672}};
    config.steps[0].max_side = 1024;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int *s = sizes[i];
        for (int r = ROUND_FLOOR; r <= ROUND_HALF_EVEN; r++) {
            config.steps[0].rounding = (Rounding)r;
            expect_size("rounding", &config, s[1], s[0], s[5], s[2 + r]);
        }
        EXPECT(s[2] / 16 * (s[5] / 16 + 1) == s[6], "%d x %d: tokens", s[0], s[1]);
    }
}

TEST(processor_sizes_reader) {
    ProcessorConfig cap = preset("pixtral-reader");
    cap.step_count = 1; // the 256-pixel rule alone
    expect_size("cap", &cap, 392, 392, 255, 255);
    expect_size("cap", &cap, 256, 100, 256, 100);
    expect_size("cap", &cap, 1024, 768, 256, 192);
    expect_size("cap", &cap, 3000, 90, 256, 28);
    int short_widths = 0;
    for (int side = 257; side <= 4096; side++) {
        int w, h;
        processor_size(&cap, side, side, &w, &h);
        EXPECT(w == 255 || w == 256, "side %d gives %d", side, w);
        short_widths += w == 255;
    }
    EXPECT(short_widths == 491, "%d widths up to 4096 give 255, want 491", short_widths);
    // side -> side -> tokens of 28 x 28 pixels
    static const int qwen[][4] = {{28, 28, 56, 56},     {64, 64, 56, 56},     {128, 128, 140, 140},
                                  {224, 224, 224, 224}, {256, 256, 252, 252}, {512, 512, 252, 252},
                                  {1024, 768, 252, 196}};
    static const int tokens[] = {4, 4, 25, 64, 81, 81, 63};
    ProcessorConfig config = preset("qwen2vl-reader");
    for (size_t i = 0; i < sizeof qwen / sizeof *qwen; i++) {
        const int *s = qwen[i];
        expect_size("qwen2vl-reader", &config, s[0], s[1], s[2], s[3]);
        EXPECT(s[2] / 28 * (s[3] / 28) == tokens[i], "%d x %d: tokens", s[0], s[1]);
    }
    config = preset("pixtral-reader");
    expect_size("pixtral-reader", &config, 256, 256, 256, 256);
    expect_size("aspect", &config, 201, 1, 192, 16); // 201:1 becomes 180:1, then multiples of 16
}

// ---- pixels ----
// Ten radiographs against Pillow's decode, resize and crop of the same files, byte for byte.
TEST(processor_gold_crops) {
    const char *index = check_data("images/preprocess-gold/bicubic224/index.csv");
    FILE *file = index ? fopen(index, "r") : NULL;
    const ProcessorConfig config = preset("clip");
    char line[256], stem[64];
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%63[^.].jpg", stem) != 1 || strncmp(stem, "synpic", 6) != 0) {
            continue;
        }
        char path[2][200];
        snprintf(path[0], sizeof path[0], "medical/vqa-rad/images/%s.jpg", stem);
        snprintf(path[1], sizeof path[1], "images/preprocess-gold/bicubic224/%s.png", stem);
        if (!CASE("%s", stem) || !check_data(path[0])) {
            continue;
        }
        Image pictures[2];
        for (int i = 0; i < 2; i++) {
            FileBytes bytes = {0};
            const ImageLimits limits = image_limits_default();
            int warnings;
            EXPECT(file_read_new(&bytes, check_data(path[i]), 1 << 24).code == EXIT_OK, "%s",
                   path[i]);
            const Error error =
                image_decode(bytes.data, bytes.size, &limits, &pictures[i], &warnings);
            EXPECT(error.code == EXIT_OK, "%s: %s", path[i], error.text);
            file_bytes_free(&bytes);
        }
        Image got = processor_image_new(&config, check_device(), &pictures[0]);
        Image want = image_to_rgb_new(&pictures[1]);
        EXPECT(image_hash(&got) == image_hash(&want), "%s: pixels differ", stem);
        image_free(&got);
        image_free(&want);
        image_free(&pictures[0]);
        image_free(&pictures[1]);
    }
    if (file) {
        fclose(file);
    }
}

static Image flat(int w, int h, int level) {
    Image image = image_new(w, h, 1);
    memset(image.data, level, image_bytes(&image));
    return image;
}

// A black and a white pixel under CLIP's mean and deviation, for each way to scale.
TEST(processor_black_and_white) {
    static const double want[2][3] = {{-1.792263, -1.752097, -1.480220},
                                      {1.930336, 2.074884, 2.145897}};
    static float out[3 * 224 * 224];
    for (int scale = SCALE_DIVIDE; scale <= SCALE_FUSED; scale++) {
        ProcessorConfig config = preset("clip");
        config.scale = (ScaleRule)scale;
        for (int white = 0; white < 2; white++) {
            Image image = flat(50, 40, 255 * white);
            processor_run(&config, check_device(), &image, out);
            for (int c = 0; c < 3; c++) {
                const double got[2] = {out[c * 224 * 224], out[(c + 1) * 224 * 224 - 1]};
                const double both[2] = {want[white][c], want[white][c]};
                expect_within("pixel", got, both, 2, 1e-6);
            }
            image_free(&image);
        }
    }
}

// Sums of |pixel| over pictures of the level 128, as the tests of mistral-common state them.
TEST(processor_grey_sums) {
    static const struct {
        int w, h;
        double sum;
    } cases[] = {{200, 311, 38949.726562},  {300, 212, 39848.566406},  {251, 1374, 115051.507812},
                 {1475, 477, 201340.125},   {1344, 1544, 536907.0},    {2133, 3422, 383505.0}};
    ProcessorConfig config = preset("pixtral");
    config.steps[0].rounding = ROUND_HALF_EVEN;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Image image = flat(cases[i].w, cases[i].h, 128);
        int w, h;
        processor_size(&config, image.width, image.height, &w, &h);
        const size_t n = (size_t)w * (size_t)h * 3;
        float *out = malloc(n * sizeof *out);
        processor_run(&config, check_device(), &image, out);
        double sum = 0;
        for (size_t k = 0; k < n; k++) {
            sum += fabs(out[k]);
        }
        // The stated sums are f32 sums of values that carry f32 rounding: half a million of about
        // 1.
        expect_within("sum", &sum, &cases[i].sum, 1, 0.1);
        free(out);
        image_free(&image);
    }
}

// The tiny forms keep a 32 x 32 picture as it is; the reader's halves it by exact means.
TEST(processor_tiny) {
    Image image = image_new(32, 32, 1);
    Rng rng = check_rng(0);
    for (size_t i = 0; i < 1024; i++) {
        image.data[i] = (uint8_t)rng_below(&rng, 256);
    }
    static float whole[3 * 32 * 32], half[3 * 16 * 16];
    const ProcessorConfig tiny = preset("tiny"), reader = preset("tiny-reader");
    expect_size("tiny", &tiny, 5, 9, 32, 32);
    expect_size("tiny-reader", &reader, 5, 9, 16, 16);
    processor_run(&tiny, check_device(), &image, whole);
    processor_run(&reader, check_device(), &image, half);
    static const double mean[3] = {0.48145466, 0.4578275, 0.40821073};
    static const double sd[3] = {0.26862954, 0.26130258, 0.27577711};
    double got[2][3 * 32 * 32], want[2][3 * 32 * 32];
    for (int i = 0; i < 3 * 1024; i++) {
        got[0][i] = whole[i];
        want[0][i] = (image.data[i % 1024] / 255.0 - mean[i / 1024]) / sd[i / 1024];
    }
    for (int i = 0; i < 3 * 256; i++) {
        const uint8_t *block = image.data + i % 256 / 16 * 64 + i % 16 * 2;
        got[1][i] = half[i];
        const double pixel = (block[0] + block[1] + block[32] + block[33]) / 1020.0;
        want[1][i] = (pixel - mean[i / 256]) / sd[i / 256];
    }
    // Rounded: v / 255 (half an ulp below 1, magnified by 1/sd), mean, difference, sd, and the
    // quotient (up to 2.2).
    expect_within("tiny", got[0], want[0], 3 * 1024, 1.2e-6);
    expect_within("tiny-reader", got[1], want[1], 3 * 256, 1.2e-6);
    image_free(&image);
}

TEST(processor_hash) {
    static const char *const names[] = {"clip", "jina", "clip-hf",
                                        "qwen2vl", "qwen2vl-reader", "pixtral",
                                        "pixtral-reader", "tiny", "tiny-reader"};
    enum { NAMES = sizeof names / sizeof *names };
    uint64_t hashes[NAMES];
    for (int i = 0; i < NAMES; i++) {
        ProcessorConfig config = preset(names[i]);
        hashes[i] = processor_hash(&config);
        for (int j = 0; j < i; j++) {
            EXPECT(hashes[i] != hashes[j], "%s and %s", names[i], names[j]);
        }
        config.std[2] += 1e-3f;
        EXPECT(processor_hash(&config) != hashes[i], "%s: std is not in the hash", names[i]);
    }
    ProcessorConfig clip = preset("clip");
    const ProcessorConfig jina = preset("jina");
    clip.rgb = RGB_FIRST;
    EXPECT(processor_hash(&clip) == processor_hash(&jina), "equal lists, equal hash");
    ProcessorConfig none;
    EXPECT(!processor_preset("blip", &none), "unknown preset");
    char listed[] = PROCESSOR_PRESETS;
    for (char *rest = NULL, *name = strtok_r(listed, " ", &rest); name;
         name = strtok_r(NULL, " ", &rest)) {
        EXPECT(processor_preset(name, &none), "the message names '%s', which is no preset", name);
    }
}
