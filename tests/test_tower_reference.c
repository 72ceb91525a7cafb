// test_tower_reference: image and text towers against timm, transformers, and JinaBERT's own code:
// embeddings and the gradient of every parameter. The configurations repeat those of
// tools/dump_reference_*.py.
#include <stdio.h>
#include <stdlib.h>

#include "models/image_tower.h"
#include "models/text_tower.h"
#include "tests/check.h"
#include "tests/model_check.h"
#include "tests/reference.h"

// Loads the fixture into model->list, runs forward and backward, and compares everything.
static void expect_reference(const ModelUnderTest *model, const Reference *reference) {
    tensors_mark(model->list, "", true);
    tensors_allocate(model->list, check_device(), DT_F32);
    reference_load(reference, model->list, false);
    size_t count;
    float *dout = reference_f32_new(reference, "input/dout", &count);
    EXPECT(count == model->count, "%zu outputs instead of %zu", count, model->count);
    float *out = xmalloc(model->count, sizeof *out);
    tensors_zero_grad(model->list);
    model_run(model, out, dout, false);
    reference_expect(reference, "out", out, model->count);
    int files = 0;
    for (int i = 0; i < model->list->count; i++) {
        files += model->list->tensor[i]->file_row == 0; // a fused tensor counts once
    }
    const int compared = reference_expect_gradients(reference, model->list);
    EXPECT(compared == files, "%d of %d gradients compared", compared, files);
    free(out);
    free(dout);
}

// ---- images ----
typedef struct {
    ImageTower tower;
    float *pixels;
} ImageFixture;

static void image_pass(void *ctx, Run *run, void *out, const void *dout) {
    ImageFixture *fixture = ctx;
    ImageTowerState state;
    image_tower_fwd(run, &fixture->tower, &state, out, fixture->pixels, 2);
    if (dout) {
        image_tower_bwd(run, &fixture->tower, &state, dout);
    }
}

TEST(image_tower_reference) {
    const struct {
        const char *preset, *file;
        int C, E;
    } forms[] = {{"tiny", "image_tower_jina.safetensors", 16, 16},
                 {"biomedclip", "image_tower_timm.safetensors", 8, 5},
                 {"clip-vit-b-32", "image_tower_clip.safetensors", 8, 5}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (!CASE("%s", forms[i].file)) {
            continue;
        }
        ImageTowerConfig config;
        image_tower_preset(&config, forms[i].preset);
        config.image_size = 12;
        config.P = 4;
        config.L = 2;
        config.E = forms[i].E;
        config.block.C = forms[i].C;
        config.block.H = config.block.Hkv = 2;
        config.block.D = forms[i].C / 2;
        config.block.F = 12;
        TensorList list = tensors_new();
        ImageFixture fixture = {.tower = image_tower_new(&list, &config)};
        const ModelUnderTest model = {.list = &list, .pass = image_pass, .ctx = &fixture,
                                      .count = (size_t)2 * config.E};
        Reference reference = reference_open(forms[i].file);
        size_t count;
        float *pixels = reference_f32_new(&reference, "input/pixels", &count);
        fixture.pixels = device_alloc(check_device(), count * sizeof *pixels, "pixels");
        device_copy_in(check_device(), fixture.pixels, pixels, count * sizeof *pixels);
        expect_reference(&model, &reference);
        device_release(check_device(), fixture.pixels);
        free(pixels);
        reference_free(&reference);
        image_tower_free(&fixture.tower);
        tensors_free(&list);
    }
}

// ---- texts ----
typedef struct {
    TextTower tower;
    TextBatch batch;
} TextFixture;

static void text_pass(void *ctx, Run *run, void *out, const void *dout) {
    TextFixture *fixture = ctx;
    TextTowerState state;
    text_tower_fwd(run, &fixture->tower, &state, out, &fixture->batch);
    if (dout) {
        text_tower_bwd(run, &fixture->tower, &state, dout);
    }
}

TEST(text_tower_reference) {
    const struct {
        const char *preset, *file;
        int E;
    } forms[] = {{"tiny", "text_tower_jina.safetensors", 12},
                 {"minilm-l6", "text_tower_minilm.safetensors", 12},
                 {"biomedclip", "text_tower_biomedclip.safetensors", 5},
                 {"clip-vit-b-32", "text_tower_clip.safetensors", 5}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (!CASE("%s", forms[i].file)) {
            continue;
        }
        TextTowerConfig config;
        text_tower_preset(&config, forms[i].preset);
        config.V = 13;
        config.L = 2;
        config.E = forms[i].E;
        config.max_T = config.has_positions ? 8 : 0;
        config.head_hidden = config.head_hidden ? 10 : 0;
        config.block.C = 12;
        config.block.H = config.block.Hkv = 3;
        config.block.D = 4;
        config.block.F = 20;
        TensorList list = tensors_new();
        TextFixture fixture = {.tower = text_tower_new(&list, &config)};
        Reference reference = reference_open(forms[i].file);
        size_t N, ends;
        int32_t *ids = reference_ids_new(&reference, "input/ids", &N);
        int32_t *cu_seqlens = reference_ids_new(&reference, "input/cu_seqlens", &ends);
        fixture.batch = (TextBatch){.B = (int)ends - 1, .N = (int)N, .max_T = 6, .ids = ids,
                                    .cu_seqlens = cu_seqlens};
        const ModelUnderTest model = {.list = &list, .pass = text_pass, .ctx = &fixture,
                                      .count = (ends - 1) * (size_t)config.E};
        expect_reference(&model, &reference);
        free(ids);
        free(cu_seqlens);
        reference_free(&reference);
        text_tower_free(&fixture.tower);
        tensors_free(&list);
    }
}
