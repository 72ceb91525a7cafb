// What models' folders say about pictures: files as they are published, both eras, refusals by
// name.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/processor_file.h"
#include "tests/check.h"

static Error parse(ProcessorConfig *out, const char *text) {
    return processor_parse(out, text, strlen(text));
}

#define MEAN "[0.48145466, 0.4578275, 0.40821073]"
#define STD "[0.26862954, 0.26130258, 0.27577711]"
#define ABOUT "\"image_mean\": " MEAN ", \"image_std\": " STD ", "

// The published forms, each beside the preset it must equal (with another scale or rule for RGB).
TEST(processor_file_forms) {
    static const struct {
        const char *name, *text, *preset;
        ScaleRule scale;
        RgbRule rgb;
    } cases[] = {
        {"clip, 2021", "{\"crop_size\": 224, \"do_center_crop\": true, \"do_normalize\": true, "
         "\"do_resize\": true, \"feature_extractor_type\": \"CLIPFeatureExtractor\", " ABOUT
         "\"resample\": 3, \"size\": 224}", "clip-hf", SCALE_DIVIDE, RGB_FIRST},
        {"clip, dicts", "{\"crop_size\": {\"height\": 224, \"width\": 224}, "
         "\"do_convert_rgb\": true, \"do_rescale\": true, \"rescale_factor\": 0.00392156862745098, "
         "\"image_processor_type\": \"CLIPImageProcessor\", \"size\": {\"shortest_edge\": 224}}",
         "clip-hf", SCALE_DIVIDE, RGB_FIRST},
        {"clip, fast", "{\"image_processor_type\": \"CLIPImageProcessorFast\", \"device\": null, "
         "\"do_pad\": false, \"default_to_square\": false, \"data_format\": \"channels_first\"}",
         "clip-hf", SCALE_FUSED, RGB_FIRST},
        {"clip, newest", "{\"image_processor\": {\"image_processor_type\": \"CLIPImageProcessor\", "
         "\"pad_size\": null}, \"processor_class\": \"CLIPProcessor\"}", "clip-hf", SCALE_FUSED,
         RGB_ON_WHITE},
        {"jina", "{\"_valid_processor_keys\": [\"images\"], \"auto_map\": {}, \"fill_color\": 0, "
         "\"image_processor_type\": \"JinaCLIPImageProcessor\", \"interpolation\": \"bicubic\", "
         "\"mean\": " MEAN ", \"std\": " STD ", \"resize_mode\": \"shortest\", \"size\": 224}",
         "jina", SCALE_DIVIDE, RGB_FIRST},
        {"biomedclip", "{\"model_cfg\": {\"embed_dim\": 512, \"vision_cfg\": {\"timm_model_name\": "
         "\"vit_base_patch16_224\", \"image_size\": 224}}, \"preprocess_cfg\": {\"mean\": " MEAN
         ", \"std\": " STD "}}", "clip", SCALE_DIVIDE, RGB_LAST},
        {"open_clip, newest", "{\"model_cfg\": {}, \"preprocess_cfg\": {\"size\": [224, 224], "
         "\"mode\": \"RGB\", \"interpolation\": \"bicubic\", \"resize_mode\": \"shortest\", "
         "\"fill_color\": 0}}", "clip", SCALE_DIVIDE, RGB_LAST},
        {"qwen2vl, 2024", "{\"min_pixels\": 3136, \"max_pixels\": 12845056, \"patch_size\": 14, "
         "\"temporal_patch_size\": 2, \"merge_size\": 2, " ABOUT "\"image_processor_type\": "
         "\"Qwen2VLImageProcessor\", \"processor_class\": \"Qwen2VLProcessor\"}", "qwen2vl",
         SCALE_DIVIDE, RGB_FIRST},
        {"qwen2vl, sizes", "{\"size\": {\"min_pixels\": 3136, \"max_pixels\": 12845056}, "
         "\"image_processor_type\": \"Qwen2VLImageProcessor\"}", "qwen2vl", SCALE_DIVIDE,
         RGB_FIRST},
        {"qwen2vl, edges", "{\"image_processor\": {\"size\": {\"shortest_edge\": 3136, "
         "\"longest_edge\": 12845056}, \"image_processor_type\": \"Qwen2VLImageProcessor\"}}",
         "qwen2vl", SCALE_FUSED, RGB_ON_WHITE},
        {"pixtral, 2024", "{\"do_convert_rgb\": true, \"patch_size\": {\"height\": 16, \"width\": "
         "16}, \"size\": {\"longest_edge\": 1024}, \"resample\": 3, \"image_processor_type\": "
         "\"PixtralImageProcessor\"}", "pixtral", SCALE_DIVIDE, RGB_ON_WHITE},
        {"pixtral, fast", "{\"patch_size\": 16, \"do_pad\": true, \"size\": {\"height\": 1024, "
         "\"width\": 1024}, \"image_processor_type\": \"PixtralImageProcessorFast\"}", "pixtral",
         SCALE_FUSED, RGB_ON_WHITE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ProcessorConfig got = {0}, want;
        if (!CASE("%s", cases[i].name)) {
            continue;
        }
        const Error error = parse(&got, cases[i].text);
        EXPECT(error.code == EXIT_OK, "'%s'", error.text);
        EXPECT(processor_preset(cases[i].preset, &want), "no preset");
        want.scale = cases[i].scale;
        want.rgb = cases[i].rgb;
        EXPECT(processor_hash(&got) == processor_hash(&want), "differs from '%s'", cases[i].preset);
    }
}

// Values other than the usual ones arrive where they belong.
TEST(processor_file_values) {
    ProcessorConfig c;
    Error error = parse(&c, "{\"image_processor_type\": \"CLIPImageProcessor\", \"size\": "
                        "{\"height\": 48, \"width\": 48}, \"crop_size\": 32, \"resample\": 2, "
                        "\"image_mean\": 0.5, \"image_std\": [0.25, 0.5, 1]}");
    EXPECT(error.code == EXIT_OK && c.step_count == 2 && c.steps[0].kind == STEP_FIXED &&
           c.steps[0].size == 48 && c.steps[0].filter == RESIZE_BILINEAR &&
           c.steps[1].kind == STEP_CROP_LOW && c.steps[1].size == 32, "'%s'", error.text);
    EXPECT(c.mean[2] == 0.5f && c.std[0] == 0.25f && c.std[2] == 1, "mean and std");
    error = parse(&c, "{\"image_processor_type\": \"CLIPImageProcessor\", \"do_resize\": false, "
                  "\"crop_size\": 32, \"do_normalize\": false}");
    EXPECT(error.code == EXIT_OK && c.step_count == 1 && c.mean[0] == 0 && c.std[0] == 1, "'%s'",
           error.text);
    int w, h;
    error = processor_size(&c, 100, 31, &w, &h);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "100 x 31"), "'%s'", error.text);
    error = parse(&c, "{\"image_processor_type\": \"CLIPImageProcessor\", "
                  "\"do_center_crop\": false, \"size\": 32, \"default_to_square\": true, "
                  "\"resample\": 0}");
    EXPECT(error.code == EXIT_OK && c.step_count == 1 && c.steps[0].kind == STEP_FIXED &&
           c.steps[0].filter == RESIZE_NEAREST, "'%s'", error.text);
    error = parse(&c, "{\"preprocess_cfg\": {\"size\": 336, \"resize_mode\": \"squash\", "
                  "\"interpolation\": \"bilinear\"}}");
    EXPECT(error.code == EXIT_OK && c.step_count == 1 && c.steps[0].kind == STEP_FIXED &&
           c.steps[0].size == 336 && c.steps[0].filter == RESIZE_BILINEAR, "'%s'", error.text);
    error = parse(&c, "{\"model_cfg\": {\"vision_cfg\": {\"image_size\": 336}}}");
    EXPECT(error.code == EXIT_OK && c.steps[1].size == 336, "'%s'", error.text);
    error = parse(&c, "{\"image_processor_type\": \"Qwen2VLImageProcessor\", \"patch_size\": 16, "
                  "\"max_pixels\": 50176, \"size\": "
                  "{\"shortest_edge\": 1024, \"longest_edge\": 9}}");
    EXPECT(error.code == EXIT_OK && c.steps[0].size == 32 && c.steps[0].min_pixels == 1024 &&
           c.steps[0].max_pixels == 50176, "'%s'", error.text);
    error = parse(&c, "{\"image_processor_type\": \"Qwen2VLImageProcessor\"}");
    EXPECT(error.code == EXIT_OK && c.steps[0].max_pixels == 1003520, "the class's own bound");
}

// Text, and a word the message must hold: the member to blame.
static const char *const refused[][2] = {
    {"{", "line 1"},
    {"[]", "object"},
    {"{}", "image_processor_type"},
    {"{\"image_processor_type\": \"ViTImageProcessor\"}", "ViTImageProcessor"},
    {"{\"image_processor_type\": \"Fast\"}", "Fast"},
    {"{\"image_processor\": 3}", "image_processor"},
    {"{\"image_processor_type\": 3}", "image_processor_type"},
    {"CLIP \"size\": {\"shortest_edge\": 224, \"longest_edge\": 300}", "longest_edge"},
    {"CLIP \"size\": {\"height\": 224, \"width\": 200}", "size"},
    {"CLIP \"size\": 0", "size"},
    {"CLIP \"size\": \"224\"", "size"},
    {"CLIP \"size\": 1e9", "size"},
    {"CLIP \"size\": 99999", "size"},
    {"CLIP \"size\": {\"shortest_edge\": 0}", "shortest_edge"},
    {"CLIP \"crop_size\": 256", "crop_size"},
    {"CLIP \"crop_size\": [224]", "crop_size"},
    {"CLIP \"resample\": 1", "resample"},
    {"CLIP \"do_rescale\": false", "do_rescale"},
    {"CLIP \"rescale_factor\": 1", "rescale_factor"},
    {"CLIP \"image_mean\": [0.5, 0.5]", "image_mean"},
    {"CLIP \"image_mean\": [0.5, 0.5, \"x\"]", "image_mean"},
    {"CLIP \"image_std\": 0", "image_std"},
    {"CLIP \"image_std\": [0.5, 0.5, -1]", "image_std"},
    {"CLIP \"do_flip\": true", "do_flip"},
    {"CLIP \"crop_pct\": 0.9", "crop_pct"},
    {"CLIP \"do_resize\": 1", "do_resize"},
    {"QWEN \"do_resize\": false", "do_resize"},
    {"QWEN \"min_pixels\": 100, \"max_pixels\": 99", "max_pixels"},
    {"QWEN \"size\": 224", "size"},
    {"QWEN \"size\": {\"height\": 224}", "height"},
    {"QWEN \"temporal_patch_size\": 3", "temporal_patch_size"},
    {"QWEN \"patch_size\": 0", "patch_size"},
    {"QWEN \"do_center_crop\": true", "do_center_crop"},
    {"PIXTRAL \"patch_size\": {\"height\": 16, \"width\": 14}", "patch_size"},
    {"PIXTRAL \"size\": {\"longest_edge\": 1024, \"shortest_edge\": 3}", "shortest_edge"},
    {"PIXTRAL \"size\": {\"longest_edge\": -4}", "longest_edge"},
    {"JINA \"resize_mode\": \"longest\"", "resize_mode"},
    {"JINA \"interpolation\": \"lanczos\"", "interpolation"},
    {"JINA \"resample\": 3", "resample"},
    {"{\"preprocess_cfg\": {\"mode\": \"L\"}}", "mode"},
    {"{\"preprocess_cfg\": {\"size\": [224, 336]}}", "size"},
    {"{\"preprocess_cfg\": {\"crop\": 1}}", "crop"},
    {"{\"preprocess_cfg\": 1}", "preprocess_cfg"},
    {"{\"model_cfg\": {\"vision_cfg\": {\"image_size\": []}}}", "image_size"},
};

TEST(processor_file_refusals) {
    static const char *const types[][2] = {{"CLIP", "CLIPImageProcessor"},
                                           {"QWEN", "Qwen2VLImageProcessor"},
                                           {"PIXTRAL", "PixtralImageProcessor"},
                                           {"JINA", "JinaCLIPImageProcessor"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char text[300];
        snprintf(text, sizeof text, "%s", refused[i][0]);
        for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
            const size_t n = strlen(types[k][0]);
            if (strncmp(refused[i][0], types[k][0], n) == 0) {
                snprintf(text, sizeof text, "{\"image_processor_type\": \"%s\", %s}", types[k][1],
                         refused[i][0] + n);
            }
        }
        ProcessorConfig config = {.step_count = 77};
        const Error error = parse(&config, text);
        EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, refused[i][1]), "%s: '%s'", text,
               error.text);
        EXPECT(config.step_count == 77, "%s: written in spite of an error", text);
    }
}

// The order of the files in a folder, and what is said when there is none or a bad one.
TEST(processor_file_folder) {
    static const char *const files[][2] = {
        {"open_clip_config.json", "{\"preprocess_cfg\": {\"size\": 111}}"},
        {"processor_config.json", "{\"image_token\": \"[IMG]\"}"}, // about tokens: passed over
        {"preprocessor_config.json", "{\"image_processor_type\": \"CLIPImageProcessor\"}"}};
    static const int sides[] = {111, 111, 224};
    const char *dir = check_tmpdir();
    ProcessorConfig config;
    Error error = processor_open(&config, dir);
    EXPECT(error.code == EXIT_NO_INPUT && strstr(error.text, "preprocessor_config"), "'%s'",
           error.text);
    for (int i = 0; i < 3; i++) {
        char *path = file_join_new(dir, files[i][0]);
        EXPECT(file_replace(path, files[i][1], strlen(files[i][1])).code == EXIT_OK, "%s", path);
        error = processor_open(&config, dir);
        EXPECT(error.code == EXIT_OK && config.steps[0].size == sides[i], "%s: '%s' %d",
               files[i][0], error.text, config.steps[0].size);
        if (i == 2) {
            EXPECT(file_replace(path, "{\"size\": }", 10).code == EXIT_OK, "%s", path);
            error = processor_open(&config, dir);
            EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, files[i][0]), "'%s'",
                   error.text);
        }
        free(path);
    }
}

// Every cut and many changed bytes of a file: an Error or a configuration that gives a size, never
// a crash.
TEST(processor_file_damage) {
    static const char text[] =
        "{\"image_processor_type\": \"CLIPImageProcessor\", \"size\": {\"shortest_edge\": 224}, "
        "\"crop_size\": [64, 64], \"image_mean\": [0.5, 0.5, 0.5], \"resample\": 3, "
        "\"do_center_crop\": true, \"rescale_factor\": 0.00392156862745098}";
    const size_t size = sizeof text - 1;
    Rng rng = check_rng(0);
    for (size_t i = 0; i < 3 * size; i++) {
        char copy[sizeof text];
        memcpy(copy, text, sizeof text);
        const size_t n = i < size ? i : size;
        if (i >= size) {
            copy[rng_below(&rng, (uint32_t)size)] = (char)rng_below(&rng, 256);
        }
        ProcessorConfig config;
        const Error error = processor_parse(&config, copy, n);
        int w = 0, h = 0;
        EXPECT(error.code != EXIT_OK || processor_size(&config, 300, 301, &w, &h).code != EXIT_OK ||
               (w >= 1 && h >= 1 && (double)w * h <= 1 << 26), "%.*s", (int)n, copy);
        EXPECT(i >= size || error.code == EXIT_BAD_DATA, "cut at %zu", i);
    }
}
