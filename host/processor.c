// processor: a picture to the numbers a vision tower reads; see processor.h.
#include "processor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PIXELS (1 << 26)
#define MAX_RATIO 200 // beyond this Qwen2-VL's processor refuses
#define CUT_RATIO 180 // and the original's reader cuts down to this first
#define READER_SIDE 256
#define MAX_BOX 2

// ---- presets ----
#define CLIP_MEAN {0.48145466f, 0.4578275f, 0.40821073f}
#define CLIP_STD {0.26862954f, 0.26130258f, 0.27577711f}
#define SHORTEST_224 {.kind = STEP_SHORTEST, .filter = RESIZE_BICUBIC, .size = 224}
#define QWEN_AREA .filter = RESIZE_BICUBIC, .size = 28, .min_pixels = 3136, .max_pixels = 12845056
#define PIXTRAL_1024 {.kind = STEP_LONGEST, .filter = RESIZE_BICUBIC, .size = 16, .max_side = 1024}
#define FIXED_32 {.kind = STEP_FIXED, .filter = RESIZE_BICUBIC, .size = 32}

static const struct {
    const char *name;
    ProcessorConfig config;
} presets[] = {
    {"clip", {.steps = {SHORTEST_224, {.kind = STEP_CROP, .size = 224}}, .step_count = 2, .box = 1,
              .rgb = RGB_LAST, .mean = CLIP_MEAN, .std = CLIP_STD}},
    {"jina", {.steps = {SHORTEST_224, {.kind = STEP_CROP, .size = 224}}, .step_count = 2, .box = 1,
              .mean = CLIP_MEAN, .std = CLIP_STD}},
    {"clip-hf", {.steps = {SHORTEST_224, {.kind = STEP_CROP_LOW, .size = 224}}, .step_count = 2,
                 .box = 1, .mean = CLIP_MEAN, .std = CLIP_STD}},
    {"qwen2vl", {.steps = {{.kind = STEP_MULTIPLE, QWEN_AREA}}, .step_count = 1, .box = 1,
                 .mean = CLIP_MEAN, .std = CLIP_STD}},
    {"pixtral", {.steps = {PIXTRAL_1024}, .step_count = 1, .box = 1, .rgb = RGB_ON_WHITE,
                 .mean = CLIP_MEAN, .std = CLIP_STD}},
    {"tiny", {.steps = {FIXED_32}, .step_count = 1, .box = 1, .mean = CLIP_MEAN,
              .std = CLIP_STD}},
    {"tiny-reader", {.steps = {FIXED_32}, .step_count = 1, .box = 2, .mean = CLIP_MEAN,
                     .std = CLIP_STD}},
};

static bool is_multiple(const ProcessorStep *step) {
    return step->kind == STEP_MULTIPLE || step->kind == STEP_MULTIPLE_LEAST;
}

static bool is_crop(const ProcessorStep *step) {
    return step->kind == STEP_CROP || step->kind == STEP_CROP_LOW;
}

static bool find_preset(const char *name, size_t length, ProcessorConfig *config) {
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (strlen(presets[i].name) == length && memcmp(presets[i].name, name, length) == 0) {
            *config = presets[i].config;
            return true;
        }
    }
    return false;
}

bool processor_preset(const char *name, ProcessorConfig *config) {
    const size_t length = strlen(name), suffix = strlen("-reader");
    if (find_preset(name, length, config)) {
        return true;
    }
    ProcessorConfig own;
    if (length <= suffix || strcmp(name + length - suffix, "-reader") != 0 ||
        !find_preset(name, length - suffix, &own) ||
        (!is_multiple(&own.steps[0]) && own.steps[0].kind != STEP_LONGEST)) {
        return false;
    }
    processor_cap_first(&own, READER_SIDE);
    *config = own;
    return true;
}

void processor_cap_first(ProcessorConfig *config, int max_side) {
    CHECK(config->step_count == 1, "%d steps", config->step_count);
    const ProcessorStep own = config->steps[0];
    int n = 0;
    if (is_multiple(&own)) {
        config->steps[n++] = (ProcessorStep){.kind = STEP_MULTIPLE_LEAST, QWEN_AREA};
    }
    config->steps[n++] = (ProcessorStep){
        .kind = STEP_CAP, .filter = RESIZE_NEAREST, .size = 28, .max_side = max_side};
    config->steps[n++] = (ProcessorStep){.kind = STEP_ASPECT, .filter = RESIZE_NEAREST};
    config->steps[n++] = own;
    config->step_count = n;
}

void processor_cap_for_sft(ProcessorConfig *config) {
    const ProcessorStep own = config->steps[config->step_count - 1];
    int n = 0;
    config->steps[n++] = (ProcessorStep){
        .kind = STEP_CAP, .filter = RESIZE_NEAREST, .size = 1, .max_side = 512};
    if (is_multiple(&own)) {
        config->steps[n++] = (ProcessorStep){
            .kind = STEP_LEAST, .filter = RESIZE_NEAREST, .size = own.size};
        config->steps[n++] = (ProcessorStep){.kind = STEP_ASPECT, .filter = RESIZE_NEAREST};
    }
    config->steps[n++] = own;
    config->step_count = n;
}

// Field by field, because a struct may hold padding.
uint64_t processor_hash(const ProcessorConfig *config) {
    const int32_t head[4] = {config->step_count, config->box, (int32_t)config->scale,
                             (int32_t)config->rgb};
    uint64_t hash = xxh64(head, sizeof head, 0);
    for (int i = 0; i < config->step_count; i++) {
        const ProcessorStep *step = &config->steps[i];
        const int64_t fields[7] = {(int64_t)step->kind, (int64_t)step->filter, step->size,
                                   step->max_side,      step->min_pixels,      step->max_pixels,
                                   (int64_t)step->rounding};
        hash = xxh64(fields, sizeof fields, hash);
    }
    hash = xxh64(config->mean, sizeof config->mean, hash);
    return xxh64(config->std, sizeof config->std, hash);
}

// ---- sizes ----
// All in double and in the order of the originals: a side can hang on the last bit.
typedef struct {
    double w, h;
} Size;

// rint rounds half to even, as Python's round does.
static Size multiple_size(const ProcessorStep *step, double w, double h) {
    const double factor = step->size, least = step->kind == STEP_MULTIPLE_LEAST ? factor : 0;
    Size s = {fmax(least, factor * rint(w / factor)), fmax(least, factor * rint(h / factor))};
    if (s.w * s.h > (double)step->max_pixels) {
        const double beta = sqrt(h * w / (double)step->max_pixels);
        s.h = fmax(factor, factor * floor(h / beta / factor));
        s.w = fmax(factor, factor * floor(w / beta / factor));
    } else if (s.w * s.h < (double)step->min_pixels) {
        const double beta = sqrt((double)step->min_pixels / (h * w));
        s.h = factor * ceil(h * beta / factor);
        s.w = factor * ceil(w * beta / factor);
    }
    return s;
}

static Size longest_size(const ProcessorStep *step, double w, double h) {
    const double ratio = fmax(h / step->max_side, w / step->max_side);
    Size s = {w, h};
    if (ratio > 1) {
        const Rounding r = step->rounding;
        s.w = r == ROUND_FLOOR  ? floor(w / ratio)
              : r == ROUND_CEIL ? ceil(w / ratio)
                                : rint(w / ratio);
        s.h = r == ROUND_FLOOR  ? floor(h / ratio)
              : r == ROUND_CEIL ? ceil(h / ratio)
                                : rint(h / ratio);
    }
    // A strip thinner than the ratio would vanish; one patch is the least there can be.
    s.w = step->size * ceil(fmax(s.w, 1) / step->size);
    s.h = step->size * ceil(fmax(s.h, 1) / step->size);
    return s;
}

static Size step_size(const ProcessorStep *step, double w, double h) {
    switch (step->kind) {
    case STEP_FIXED:
    case STEP_CROP:
    case STEP_CROP_LOW: return (Size){step->size, step->size};
    case STEP_SHORTEST:
        return w <= h ? (Size){step->size, trunc(step->size * h / w)}
                      : (Size){trunc(step->size * w / h), step->size};
    case STEP_MULTIPLE:
    case STEP_MULTIPLE_LEAST: return multiple_size(step, w, h);
    case STEP_LONGEST: return longest_size(step, w, h);
    case STEP_CAP: {
        const double factor = step->max_side / fmax(w, h);
        return factor >= 1 ? (Size){w, h}
                           : (Size){fmax(trunc(w * factor), step->size),
                                    fmax(trunc(h * factor), step->size)};
    }
    case STEP_LEAST: return (Size){fmax(w, step->size), fmax(h, step->size)};
    case STEP_ASPECT:
        return w / h > MAX_RATIO   ? (Size){CUT_RATIO * h, h}
               : h / w > MAX_RATIO ? (Size){w, CUT_RATIO * w}
                                   : (Size){w, h};
    }
    CHECK(false, "step %d", (int)step->kind);
    return (Size){0, 0};
}

Error processor_size(const ProcessorConfig *config, int width, int height, int *out_width,
                     int *out_height) {
    CHECK(width >= 1 && height >= 1, "%d x %d", width, height);
    Size s = {width, height};
    for (int i = 0; i < config->step_count; i++) {
        const ProcessorStep *step = &config->steps[i];
        if (is_multiple(step) && fmax(s.w, s.h) / fmin(s.w, s.h) > MAX_RATIO) {
            return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                            "picture of %d x %d is more than %d times as long as wide; cut it",
                            width, height, MAX_RATIO);
        }
        if (is_crop(step) && fmin(s.w, s.h) < step->size) {
            return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                            "picture of %d x %d is too small to crop %d x %d from; resize it",
                            width, height, step->size, step->size);
        }
        s = step_size(step, s.w, s.h);
        if (s.w * s.h > MAX_PIXELS || s.w < 1 || s.h < 1) {
            return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                            "picture of %d x %d would be resized to %.0f x %.0f; cut it",
                            width, height, s.w, s.h);
        }
    }
    *out_width = (int)s.w / config->box;
    *out_height = (int)s.h / config->box;
    CHECK((int)s.w % config->box == 0 && (int)s.h % config->box == 0, "%.0f x %.0f, box=%d", s.w,
          s.h, config->box);
    return error_none();
}

// ---- pixels ----
static int crop_start(const ProcessorStep *step, int excess) {
    return step->kind == STEP_CROP ? (int)rint(excess / 2.0) : excess / 2;
}

static Image after_step_new(const ProcessorStep *step, Device *dev, const Image *image) {
    const Size s = step_size(step, image->width, image->height);
    const int w = (int)s.w, h = (int)s.h;
    return is_crop(step) ? image_crop_new(image, crop_start(step, image->width - w),
                                          crop_start(step, image->height - h), w, h)
                         : image_resize_new(dev, image, w, h, step->filter);
}

// The picture whose samples the steps see. Grey is resized once and repeated behind them: its three
// copies would get the same samples.
static Image before_steps_new(RgbRule rule, const Image *image) {
    Image out = rule == RGB_ON_WHITE && image->channels > 1  ? image_on_white_new(image)
                : rule == RGB_FIRST && image->channels > 1 ? image_to_rgb_new(image)
                                                           : image_copy_new(image);
    out.mode = rule == RGB_LAST ? out.mode : IMAGE_PLAIN;
    return out;
}

Image processor_image_new(const ProcessorConfig *config, Device *dev, const Image *image) {
    Image current = before_steps_new(config->rgb, image);
    for (int i = 0; i < config->step_count; i++) {
        Image next = after_step_new(&config->steps[i], dev, &current);
        image_free(&current);
        current = next;
    }
    if (current.channels != 3) {
        Image colours = image_to_rgb_new(&current);
        image_free(&current);
        current = colours;
    }
    return current;
}

static float scale_sample(const ProcessorConfig *config, int sum, int c) {
    const float mean = config->mean[c], std = config->std[c];
    return config->scale == SCALE_FUSED
               ? ((float)sum - 255.0f * mean) / (255.0f * std)
               : ((float)sum / (float)(255 * config->box * config->box) - mean) / std;
}

void processor_run(const ProcessorConfig *config, Device *dev, const Image *image, float *out) {
    enum { MOST = 255 * MAX_BOX * MAX_BOX };
    const int box = config->box, most = 255 * box * box;
    CHECK(box >= 1 && box <= MAX_BOX && (box == 1 || config->scale == SCALE_DIVIDE),
          "box=%d scale=%d", box, (int)config->scale);
    Image picture = processor_image_new(config, dev, image);
    const int W = picture.width / box, H = picture.height / box;
    for (int c = 0; c < 3; c++) {
        float scaled[MOST + 1]; // of every sum of a block
        for (int sum = 0; sum <= most; sum++) {
            scaled[sum] = scale_sample(config, sum, c);
        }
        for (int y = 0; y < H; y++) {
            for (int x = 0; x < W; x++) {
                int sum = 0;
                for (int k = 0; k < box * box; k++) {
                    const size_t row = (size_t)(y * box + k / box),
                                 column = (size_t)(x * box + k % box);
                    sum += picture.data[(row * (size_t)picture.width + column) * 3 + (size_t)c];
                }
                *out++ = scaled[sum];
            }
        }
    }
    image_free(&picture);
}
