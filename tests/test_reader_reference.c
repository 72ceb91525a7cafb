// test_reader_reference: the reader against transformers (Qwen2-VL, Pixtral) and PEFT: logits and
// the gradient of every parameter. The configurations repeat those of tools/dump_reference_*.py.
#include <stdio.h>
#include <stdlib.h>

#include "models/reader.h"
#include "tests/check.h"
#include "tests/model_check.h"
#include "tests/reference.h"

enum { VOCABULARY = 11, IMAGE_ID = 7, PROMPTS = 3, PATCH = 4 };

static ReaderConfig reference_config(ReaderFamily family) {
    ReaderConfig config;
    const bool is_qwen = family == READER_QWEN2VL;
    reader_preset(&config, is_qwen ? "tiny-qwen2vl" : "tiny-pixtral");
    config.V = VOCABULARY;
    config.image_id = IMAGE_ID;
    config.L = config.vision.L = 2;
    config.theta = is_qwen ? 10000 : 1000;
    config.sections[0] = 2;
    config.sections[1] = config.sections[2] = 1;
    config.block.C = config.vision.C_out = 16;
    config.block.D = 8;
    config.block.H = is_qwen ? 2 : 4;
    config.block.Hkv = is_qwen ? 1 : 2;
    config.block.F = 12;
    config.vision.P = PATCH;
    config.vision.block.C = is_qwen ? 8 : 16;
    config.vision.block.H = config.vision.block.Hkv = is_qwen ? 1 : 2;
    config.vision.block.D = 8;
    config.vision.block.F = is_qwen ? 8 : 12;
    return config;
}

// The prompts of a fixture as one packed batch. Pixels stay the caller's to free.
static ReaderBatch batch_new(const Reference *reference, const ReaderConfig *config,
                             float *pixels[], int *images_out) {
    ReaderBatch batch = reader_batch_new();
    int images = 0;
    for (int b = 0; b < PROMPTS; b++) {
        char name[32];
        size_t T, wanted_count;
        ReaderImage image[4];
        int count = 0;
        snprintf(name, sizeof name, "input/ids%d", b);
        int32_t *ids = reference_ids_new(reference, name, &T);
        snprintf(name, sizeof name, "input/wanted%d", b);
        int32_t *wanted = reference_ids_new(reference, name, &wanted_count);
        for (;; count++) {
            snprintf(name, sizeof name, "input/pixels%d.%d", b, count);
            if (!reference_has(reference, name)) {
                break;
            }
            const SafeTensor *tensor = safetensors_find(&reference->store.all, name);
            pixels[images] = reference_f32_new(reference, name, NULL);
            image[count] = (ReaderImage){.rows = (int)tensor->shape[1] / PATCH,
                                         .columns = (int)tensor->shape[2] / PATCH,
                                         .pixels = pixels[images++]};
        }
        reader_batch_add(&batch, config, ids, (int)T, image, count, wanted, (int)wanted_count);
        free(ids);
        free(wanted);
    }
    *images_out = images;
    return batch;
}

typedef struct {
    Reader *reader;
    ReaderBatch batch;
} Fixture;

static void pass(void *ctx, Run *run, void *out, const void *dout) {
    Fixture *fixture = ctx;
    ReaderState state;
    reader_fwd(run, fixture->reader, &state, out, &fixture->batch);
    if (dout) {
        reader_bwd(run, fixture->reader, &state, dout);
    }
}

// weights, and, where it is not NULL, more of them in a second fixture that also has the
// expectations.
static void expect_reference(const char *weights, const char *more, const ReaderConfig *config,
                             bool is_base_trainable, int gradients) {
    Fixture fixture;
    fixture.reader = reader_new(check_device(), DT_F32, config, is_base_trainable);
    TensorList *list = &fixture.reader->tensors;
    Reference reference = reference_open(weights);
    reference_load(&reference, list, more != NULL);
    if (more) {
        reference_free(&reference);
        reference = reference_open(more);
        reference_load(&reference, list, true);
    }
    tensors_pack(list);
    float *pixels[8];
    int images;
    fixture.batch = batch_new(&reference, config, pixels, &images);
    size_t count;
    float *dout = reference_f32_new(&reference, "input/dout", &count);
    float *out = xmalloc(count, sizeof *out);
    EXPECT(count == (size_t)fixture.batch.R * VOCABULARY, "%zu logits", count);
    const ModelUnderTest model = {.list = list, .pass = pass, .ctx = &fixture, .count = count};
    tensors_zero_grad(list);
    model_run(&model, out, dout, false);
    reference_expect(&reference, "out", out, count);
    const int compared = reference_expect_gradients(&reference, list);
    EXPECT(compared == gradients, "%d gradients compared instead of %d", compared, gradients);
    for (int i = 0; i < images; i++) {
        free(pixels[i]);
    }
    free(dout);
    free(out);
    reference_free(&reference);
    reader_batch_free(&fixture.batch);
    reader_free(fixture.reader);
}

// Logits of the bf16 reader: at most twice as far from the truth as the original's own bf16 run.
static void expect_bf16(const char *file, const ReaderConfig *config) {
    Fixture fixture;
    fixture.reader = reader_new(check_device(), DT_BF16, config, false);
    TensorList *list = &fixture.reader->tensors;
    Reference reference = reference_open(file);
    reference_load(&reference, list, false);
    tensors_pack(list);
    float *pixels[8];
    int images;
    fixture.batch = batch_new(&reference, config, pixels, &images);
    const ModelUnderTest model = {.list = list, .pass = pass, .ctx = &fixture,
                                  .count = (size_t)fixture.batch.R * VOCABULARY};
    float *out = xmalloc(model.count, sizeof *out);
    model_run(&model, out, NULL, false);
    reference_expect(&reference, "bf16/out", out, model.count);
    for (int i = 0; i < images; i++) {
        free(pixels[i]);
    }
    free(out);
    reference_free(&reference);
    reader_batch_free(&fixture.batch);
    reader_free(fixture.reader);
}

TEST(reader_reference) {
    if (CASE("qwen2vl")) {
        const ReaderConfig config = reference_config(READER_QWEN2VL);
        expect_reference("qwen2vl.safetensors", NULL, &config, true, 58);
    }
    if (CASE("qwen2vl tied")) {
        ReaderConfig config = reference_config(READER_QWEN2VL);
        config.is_tied = true;
        expect_reference("qwen2vl.safetensors", "qwen2vl_tied.safetensors", &config, true, 4);
    }
    if (CASE("qwen2vl lora")) {
        ReaderConfig config = reference_config(READER_QWEN2VL);
        reader_set_lora(&config, (LoraConfig){.rank = 3, .alpha = 6}, true);
        expect_reference("qwen2vl.safetensors", "qwen2vl_lora.safetensors", &config, false, 44);
    }
    if (CASE("qwen2vl bf16")) {
        const ReaderConfig config = reference_config(READER_QWEN2VL);
        expect_bf16("qwen2vl.safetensors", &config);
    }
    if (CASE("pixtral bf16")) {
        const ReaderConfig config = reference_config(READER_PIXTRAL);
        expect_bf16("pixtral.safetensors", &config);
    }
    if (CASE("pixtral")) {
        const ReaderConfig config = reference_config(READER_PIXTRAL);
        expect_reference("pixtral.safetensors", NULL, &config, true, 45);
    }
}
