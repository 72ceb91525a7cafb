// test_reader_reference: the reader against transformers (Qwen2-VL, Pixtral in the Llava form,
// Llama) and PEFT: logits, the gradient of every parameter, and logits in bf16. The configuration
// is read from the text that transformers wrote (tools/dump_reference_readers.py).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/hub_reader.h"
#include "tests/check.h"
#include "tests/reader_check.h"
#include "tests/reference.h"

enum { MOST_IMAGES = 16 };

typedef struct {
    Reference reference;
    ReaderFixture made; // its images are not used
    float *pixels[MOST_IMAGES];
    int images;
} Fixture;

static ReaderConfig config_of(const Reference *reference) {
    const char *text = safetensors_metadata(&reference->store.all, "config");
    CHECK(text, "no '%s'", "config");
    json_t *root;
    HubFamily family;
    ReaderConfig config;
    error_die("config", json_parse_new(&root, text, strlen(text)));
    error_die("config", hub_family_of(&family, root));
    error_die("config", hub_reader_config(&config, family, root));
    json_decref(root);
    return config;
}

// Adds prompt b of the fixture to the batch; false: there are no more.
static bool add_prompt(Fixture *fixture, int b) {
    const Reference *reference = &fixture->reference;
    const ReaderConfig *config = &fixture->made.reader->config;
    char name[48];
    snprintf(name, sizeof name, "input/ids%d", b);
    if (!reference_has(reference, name)) {
        return false;
    }
    size_t T, wanted_count;
    int32_t *ids = reference_ids_new(reference, name, &T);
    snprintf(name, sizeof name, "input/wanted%d", b);
    int32_t *wanted = reference_ids_new(reference, name, &wanted_count);
    ReaderImage image[MOST_IMAGES];
    int count = 0;
    for (;; count++) {
        snprintf(name, sizeof name, "input/pixels%d.%d", b, count);
        if (!reference_has(reference, name)) {
            break;
        }
        const SafeTensor *tensor = safetensors_find(&reference->store.all, name);
        CHECK(fixture->images < MOST_IMAGES, "images=%d", fixture->images);
        float *pixels = fixture->pixels[fixture->images++] =
            reference_f32_new(reference, name, NULL);
        image[count] = (ReaderImage){.rows = (int)tensor->shape[1] / config->vision.P,
                                     .columns = (int)tensor->shape[2] / config->vision.P,
                                     .pixels = pixels};
    }
    reader_batch_add(&fixture->made.batch, config, ids, (int)T, image, count, wanted,
                     (int)wanted_count);
    free(ids);
    free(wanted);
    return true;
}

static Fixture fixture_new(const char *file, DType t, int rank, bool is_base_trainable) {
    Fixture fixture = {.reference = reference_open(file), .made.batch = reader_batch_new()};
    ReaderConfig config = config_of(&fixture.reference);
    reader_set_lora(&config, (LoraConfig){.rank = rank, .alpha = 6}, true);
    fixture.made.reader = reader_new(check_device(), t, &config, is_base_trainable);
    tensors_formula(&fixture.made.reader->tensors);
    tensors_pack(&fixture.made.reader->tensors, SIZE_MAX);
    for (int b = 0; add_prompt(&fixture, b); b++) {
    }
    return fixture;
}

static void fixture_free(Fixture *fixture) {
    for (int i = 0; i < fixture->images; i++) {
        free(fixture->pixels[i]);
    }
    reader_batch_free(&fixture->made.batch);
    reader_free(fixture->made.reader);
    reference_free(&fixture->reference);
}

// Logits, and the gradients of all trainable tensors.
static void expect_reference(const char *file, int rank) {
    Fixture fixture = fixture_new(file, DT_F32, rank, rank == 0);
    const TensorList *list = &fixture.made.reader->tensors;
    const ModelUnderTest model = reader_under_test(&fixture.made);
    size_t count;
    float *dout = reference_f32_new(&fixture.reference, "input/dout", &count);
    float *out = xmalloc(model.count, sizeof *out);
    EXPECT(count == model.count, "%zu logits instead of %zu", count, model.count);
    model_run(&model, out, dout, false);
    reference_expect(&fixture.reference, "out", out, model.count);
    int files = 0;
    for (int i = 0; i < list->count; i++) { // a fused tensor counts once
        files += list->tensor[i]->is_trainable && list->tensor[i]->file_row == 0;
    }
    const int compared = reference_expect_gradients(&fixture.reference, list);
    EXPECT(compared == files && files > 0, "%d of %d gradients compared", compared, files);
    free(dout);
    free(out);
    fixture_free(&fixture);
}

// Logits of the bf16 reader: at most twice as far from the truth as the original's own bf16 run.
static void expect_bf16(const char *file) {
    Fixture fixture = fixture_new(file, DT_BF16, 0, false);
    const ModelUnderTest model = reader_under_test(&fixture.made);
    float *out = xmalloc(model.count, sizeof *out);
    model_run(&model, out, NULL, false);
    reference_expect(&fixture.reference, "bf16/out", out, model.count);
    free(out);
    fixture_free(&fixture);
}

TEST_DEVICE(reader_reference) {
    static const char *const families[] = {"qwen2vl", "pixtral", "llama"};
    for (int f = 0; f < 3; f++) {
        for (int k = 1; k <= 6; k++) {
            char file[64];
            snprintf(file, sizeof file, "reader_%s_%d.safetensors", families[f], k);
            if (CASE("%s %d", families[f], k)) {
                expect_reference(file, 0);
            }
            if (CASE("%s %d bf16", families[f], k)) {
                expect_bf16(file);
            }
        }
        char file[64];
        snprintf(file, sizeof file, "reader_%s_1_lora.safetensors", families[f]);
        if (f < 2 && CASE("%s lora", families[f])) {
            expect_reference(file, 3);
        }
    }
}
