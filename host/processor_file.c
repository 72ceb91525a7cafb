// processor_file: see processor_file.h.
//
// Reading is a chain: every reader takes the Error so far and does nothing when there is one, so
// that the first complaint is the one that is told.
#include "processor_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"

#define FILE_LIMIT ((size_t)1 << 20) // these files are a few hundred bytes
#define MOST_SIDE 32768
#define MOST_PIXELS ((int64_t)1 << 40)
#define BYTE_SCALE (1.0 / 255.0)

static const float clip_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float clip_std[3] = {0.26862954f, 0.26130258f, 0.27577711f};

// ---- members ----
static bool is_absent(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return !value || json_is_null(value);
}

static Error refuse(const char *name, const char *what) {
    return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member '%s' %s", name, what);
}

static void take_int(Error *error, const json_t *object, const char *name, int64_t least,
                     int64_t most, int64_t *out) {
    if (error->code == EXIT_OK) {
        *error = json_member_int(object, name, false, least, most, out);
    }
}

static bool take_bool(Error *error, const json_t *object, const char *name, bool value) {
    if (error->code == EXIT_OK) {
        *error = json_member_bool(object, name, false, &value);
    }
    return value;
}

static const char *take_text(Error *error, const json_t *object, const char *name,
                             const char *value) {
    if (error->code == EXIT_OK) {
        *error = json_member_text(object, name, false, &value);
    }
    return value;
}

// Three numbers, or one for all channels; absent leaves out.
static void take_channels(Error *error, const json_t *object, const char *name, double least,
                          float out[3]) {
    const json_t *value = json_object_get(object, name);
    if (error->code != EXIT_OK || is_absent(object, name)) {
        return;
    }
    const bool is_list = json_is_array(value);
    if (is_list && json_array_size(value) != 3) {
        *error = refuse(name, "wants three numbers; pictures have red, green and blue");
        return;
    }
    for (size_t c = 0; c < 3; c++) {
        const json_t *item = is_list ? json_array_get(value, c) : value;
        const double x = json_is_number(item) ? json_number_value(item) : (double)NAN;
        if (!(x >= least && fabs(x) < 1e6)) {
            *error = refuse(name, "wants numbers in range; copy them from the model's page");
            return;
        }
        out[c] = (float)x;
    }
}

// One side of a square given as a number, as [h,w] or as {"height","width"}; absent leaves *side.
static void take_square(Error *error, const json_t *object, const char *name, int64_t *side) {
    const json_t *value = json_object_get(object, name);
    if (error->code != EXIT_OK || is_absent(object, name)) {
        return;
    }
    int64_t height = -1, width = -1;
    if (json_is_integer(value)) {
        height = width = json_integer_value(value);
    } else if (json_is_array(value) && json_array_size(value) == 2) {
        height = json_integer_value(json_array_get(value, 0));
        width = json_integer_value(json_array_get(value, 1));
    } else if (json_is_object(value) && json_object_size(value) == 2) {
        take_int(error, value, "height", 1, MOST_SIDE, &height);
        take_int(error, value, "width", 1, MOST_SIDE, &width);
    }
    if (error->code == EXIT_OK && (height != width || height < 1 || height > MOST_SIDE)) {
        *error = refuse(name, "wants one side, or equal height and width; other forms change the "
                              "picture and are not supported");
    }
    *side = height;
}

// Members with null or, where they only switch something on, false have no effect.
static void refuse_unknown(Error *error, const json_t *object, const char *const *const lists[]) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) {
        const bool is_off = json_is_false(value) && strncmp(name, "do_", 3) == 0;
        bool is_known = json_is_null(value) || is_off;
        for (int l = 0; lists[l] && !is_known; l++) {
            for (int i = 0; lists[l][i] && !is_known; i++) {
                is_known = strcmp(lists[l][i], name) == 0;
            }
        }
        if (error->code == EXIT_OK && !is_known) {
            *error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                              "member '%.60s' may change the picture and is not supported; take it "
                              "out if it does not", name);
        }
    }
}

// ---- open_clip's and jina's transform ----
static const char *const of_transform[] = {"size", "mode", "mean", "std", "interpolation",
                                           "resize_mode", "fill_color", NULL}; // of padding

static void read_transform(Error *error, ProcessorConfig *out, const json_t *object, int64_t size) {
    take_square(error, object, "size", &size);
    take_channels(error, object, "mean", -1e6, out->mean);
    take_channels(error, object, "std", 1e-6, out->std);
    const char *resize = take_text(error, object, "resize_mode", "shortest");
    const char *filter = take_text(error, object, "interpolation", "bicubic");
    const char *mode = take_text(error, object, "mode", "RGB");
    if (error->code != EXIT_OK) {
        return;
    }
    const bool is_squash = strcmp(resize, "squash") == 0;
    const bool is_linear = strcmp(filter, "bilinear") == 0;
    if (!is_squash && strcmp(resize, "shortest") != 0) {
        *error = refuse("resize_mode", "knows shortest and squash; others pad the picture");
    } else if (!is_linear && strcmp(filter, "bicubic") != 0 && strcmp(filter, "random") != 0) {
        *error = refuse("interpolation", "knows bicubic and bilinear; others are not supported");
    } else if (strcmp(mode, "RGB") != 0) {
        *error = refuse("mode", "knows RGB; other modes are not supported");
    }
    const int side = (int)size;
    out->steps[0] = (ProcessorStep){.kind = is_squash ? STEP_FIXED : STEP_SHORTEST,
                                    .filter = is_linear ? RESIZE_BILINEAR : RESIZE_BICUBIC,
                                    .size = side};
    out->steps[1] = (ProcessorStep){.kind = STEP_CROP, .size = side};
    out->step_count = is_squash ? 1 : 2;
    out->scale = SCALE_DIVIDE;
}

static Error read_open_clip(ProcessorConfig *out, const json_t *root) {
    const json_t *model = NULL, *vision = NULL, *own = NULL;
    int64_t size = 224;
    Error error = json_member_object(root, "model_cfg", false, &model);
    if (error.code == EXIT_OK && model) {
        error = json_member_object(model, "vision_cfg", false, &vision);
    }
    if (vision) {
        take_square(&error, vision, "image_size", &size);
    }
    if (error.code == EXIT_OK) {
        error = json_member_object(root, "preprocess_cfg", false, &own);
    }
    json_t *none = json_object();
    own = own ? own : none;
    refuse_unknown(&error, own, (const char *const *const[]){of_transform, NULL});
    read_transform(&error, out, own, size);
    out->rgb = RGB_LAST;
    json_decref(none);
    return error;
}

// ---- Transformers' processors ----
// Of the text around a model, or what changes the form of the result but not its values.
static const char *const about[] = {
    "image_processor_type", "feature_extractor_type", "processor_class", "auto_map",
    "_valid_processor_keys", "use_fast", "do_convert_rgb", "return_tensors", "data_format",
    "input_data_format", "device", "disable_grouping", "default_to_square", "image_seq_length",
    "transformers_version", NULL};
static const char *const common[] = {"size", "resample", "do_resize", "do_rescale",
                                     "rescale_factor", "do_normalize", "image_mean", "image_std",
                                     NULL};

static ResizeFilter read_filter(Error *error, const json_t *object) {
    int64_t id = 3;
    take_int(error, object, "resample", 0, 5, &id);
    if (error->code == EXIT_OK && id != 0 && id != 2 && id != 3) {
        *error = refuse("resample", "knows 0 (nearest), 2 (bilinear) and 3 (bicubic)");
    }
    return id == 0 ? RESIZE_NEAREST : id == 2 ? RESIZE_BILINEAR : RESIZE_BICUBIC;
}

static void read_scale(Error *error, ProcessorConfig *out, const json_t *object) {
    double factor = BYTE_SCALE;
    take_channels(error, object, "image_mean", -1e6, out->mean);
    take_channels(error, object, "image_std", 1e-6, out->std);
    if (error->code == EXIT_OK) {
        *error = json_member_number(object, "rescale_factor", false, &factor);
    }
    if (error->code == EXIT_OK && !(fabs(factor - BYTE_SCALE) < 1e-9)) {
        *error = refuse("rescale_factor", "knows 1/255; other scales are not supported");
    }
    if (!take_bool(error, object, "do_rescale", true) && error->code == EXIT_OK) {
        *error = refuse("do_rescale", "is false; pictures of 0..255 are not supported");
    }
    const bool is_normalized = take_bool(error, object, "do_normalize", true);
    for (int c = 0; !is_normalized && c < 3; c++) {
        out->mean[c] = 0;
        out->std[c] = 1;
    }
}

static void read_clip(Error *error, ProcessorConfig *out, const json_t *object) {
    static const char *const more[] = {"do_center_crop", "crop_size", NULL};
    refuse_unknown(error, object, (const char *const *const[]){about, common, more, NULL});
    int64_t side = 224, crop = 224;
    const json_t *size = json_object_get(object, "size");
    const bool is_square = take_bool(error, object, "default_to_square", false);
    bool is_fixed = !is_absent(object, "size");
    if (json_is_object(size) && !is_absent(size, "shortest_edge")) {
        is_fixed = false;
        take_int(error, size, "shortest_edge", 1, MOST_SIDE, &side);
        refuse_unknown(error, size, (const char *const *const[]){
            (const char *const[]){"shortest_edge", NULL}, NULL});
    } else {
        take_square(error, object, "size", &side);
        is_fixed = is_fixed && (!json_is_integer(size) || is_square);
    }
    take_square(error, object, "crop_size", &crop);
    const ResizeFilter filter = read_filter(error, object);
    int n = 0;
    if (take_bool(error, object, "do_resize", true)) {
        out->steps[n++] = (ProcessorStep){.kind = is_fixed ? STEP_FIXED : STEP_SHORTEST,
                                          .filter = filter, .size = (int)side};
    }
    if (take_bool(error, object, "do_center_crop", true)) {
        if (error->code == EXIT_OK && n == 1 && crop > side) {
            *error = refuse("crop_size", "is larger than size; padding is not supported");
        }
        out->steps[n++] = (ProcessorStep){.kind = STEP_CROP_LOW, .size = (int)crop};
    }
    out->step_count = n;
}

static void read_qwen2vl(Error *error, ProcessorConfig *out, const json_t *object) {
    static const char *const more[] = {"min_pixels", "max_pixels", "patch_size", "merge_size",
                                       "temporal_patch_size", NULL};
    static const char *const of_size[] = {"min_pixels", "max_pixels", "shortest_edge",
                                          "longest_edge", NULL};
    refuse_unknown(error, object, (const char *const *const[]){about, common, more, NULL});
    int64_t least = 56 * 56, most = 28 * 28 * 1280, patch = 14, merge = 2, frames = 2;
    const json_t *size = NULL;
    if (error->code == EXIT_OK) {
        *error = json_member_object(object, "size", false, &size);
    }
    if (size) {
        refuse_unknown(error, size, (const char *const *const[]){of_size, NULL});
        for (int i = 0; i < 4; i++) { // the newer names come later and win
            take_int(error, size, of_size[i], 1, MOST_PIXELS, i % 2 == 0 ? &least : &most);
        }
    }
    take_int(error, object, "min_pixels", 1, MOST_PIXELS, &least);
    take_int(error, object, "max_pixels", 1, MOST_PIXELS, &most);
    take_int(error, object, "patch_size", 1, 256, &patch);
    take_int(error, object, "merge_size", 1, 16, &merge);
    take_int(error, object, "temporal_patch_size", 2, 2, &frames);
    if (!take_bool(error, object, "do_resize", true) && error->code == EXIT_OK) {
        *error = refuse("do_resize", "is false; the tower wants multiples of its patches");
    }
    if (error->code == EXIT_OK && least > most) {
        *error = refuse("max_pixels", "is below min_pixels; no picture fits");
    }
    out->steps[0] = (ProcessorStep){.kind = STEP_MULTIPLE, .filter = read_filter(error, object),
                                    .size = (int)(patch * merge), .min_pixels = least,
                                    .max_pixels = most};
    out->step_count = 1;
}

static void read_pixtral(Error *error, ProcessorConfig *out, const json_t *object) {
    static const char *const more[] = {"patch_size", "do_pad", NULL}; // padding is cut off again
    refuse_unknown(error, object, (const char *const *const[]){about, common, more, NULL});
    int64_t longest = 1024, patch = 16;
    const json_t *size = json_object_get(object, "size");
    if (json_is_object(size) && !is_absent(size, "longest_edge")) {
        take_int(error, size, "longest_edge", 1, MOST_SIDE, &longest);
        refuse_unknown(error, size, (const char *const *const[]){
            (const char *const[]){"longest_edge", NULL}, NULL});
    } else {
        take_square(error, object, "size", &longest);
    }
    take_square(error, object, "patch_size", &patch);
    if (!take_bool(error, object, "do_resize", true) && error->code == EXIT_OK) {
        *error = refuse("do_resize", "is false; the tower wants multiples of its patches");
    }
    out->steps[0] = (ProcessorStep){.kind = STEP_LONGEST, .filter = read_filter(error, object),
                                    .size = (int)patch, .max_side = (int)longest};
    out->step_count = 1;
}

static void read_jina(Error *error, ProcessorConfig *out, const json_t *object) {
    refuse_unknown(error, object, (const char *const *const[]){about, of_transform, NULL});
    read_transform(error, out, object, 224);
}

static Error read_processor(ProcessorConfig *out, const json_t *object, bool is_newest) {
    static const struct {
        const char *type;
        void (*read)(Error *error, ProcessorConfig *out, const json_t *object);
    } known[] = {{"CLIPImageProcessor", read_clip},
                 {"CLIPFeatureExtractor", read_clip},
                 {"JinaCLIPImageProcessor", read_jina},
                 {"Qwen2VLImageProcessor", read_qwen2vl},
                 {"PixtralImageProcessor", read_pixtral}};
    Error error = error_none();
    const char *type = take_text(&error, object, "feature_extractor_type", "");
    type = take_text(&error, object, "image_processor_type", type);
    size_t length = strlen(type);
    const bool is_fast = length > 4 && strcmp(type + length - 4, "Fast") == 0;
    length -= is_fast ? 4 : 0;
    for (size_t i = 0; i < sizeof known / sizeof *known && error.code == EXIT_OK; i++) {
        if (strlen(known[i].type) == length && memcmp(known[i].type, type, length) == 0) {
            const bool is_jina = known[i].read == read_jina;
            if (!is_jina) {
                read_scale(&error, out, object);
                out->scale = is_fast || is_newest ? SCALE_FUSED : SCALE_DIVIDE;
                out->rgb = is_newest || known[i].read == read_pixtral ? RGB_ON_WHITE : RGB_FIRST;
            }
            known[i].read(&error, out, object);
            return error;
        }
    }
    return error.code != EXIT_OK
               ? error
               : error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                          "member 'image_processor_type' is '%.60s'; known are CLIP, JinaCLIP, "
                          "Qwen2VL and PixtralImageProcessor", type);
}

// ---- files ----
static Error read_root(ProcessorConfig *out, const json_t *root) {
    ProcessorConfig config = {.box = 1};
    memcpy(config.mean, clip_mean, sizeof clip_mean);
    memcpy(config.std, clip_std, sizeof clip_std);
    const json_t *inner = NULL;
    Error error = json_is_object(root)
                      ? json_member_object(root, "image_processor", false, &inner)
                      : error_at(EXIT_BAD_DATA, 0, "wants an object, got %s", json_type_name(root));
    if (error.code == EXIT_OK) {
        const bool is_open_clip =
            !is_absent(root, "preprocess_cfg") || !is_absent(root, "model_cfg");
        error = is_open_clip ? read_open_clip(&config, root)
                             : read_processor(&config, inner ? inner : root, inner != NULL);
    }
    if (error.code == EXIT_OK) {
        *out = config;
    }
    return error;
}

Error processor_parse(ProcessorConfig *out, const void *text, size_t size) {
    json_t *root = NULL;
    Error error = json_parse_new(&root, text, size);
    if (error.code == EXIT_OK) {
        error = read_root(out, root);
        json_decref(root);
    }
    return error;
}

Error processor_open(ProcessorConfig *out, const char *dir) {
    static const char *const names[] = {"preprocessor_config.json", "processor_config.json",
                                        "open_clip_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = file_join_new(dir, names[i]);
        json_t *root = NULL;
        Error error = json_read_new(&root, path, FILE_LIMIT);
        const bool is_there = file_exists(path);
        free(path);
        const bool is_other = error.code == EXIT_OK && i == 1 && is_absent(root, "image_processor");
        if (is_there && !is_other) {
            if (error.code == EXIT_OK) {
                error = read_root(out, root);
            }
            json_decref(root);
            return error.code == EXIT_OK
                       ? error
                       : error_at(error.code, error.offset, "%s: %s", names[i], error.text);
        }
        json_decref(root);
    }
    return error_at(EXIT_NO_INPUT, ERROR_NOWHERE, "no preprocessor_config.json, no "
                    "processor_config.json with an image processor, no open_clip_config.json; "
                    "copy the model's");
}
