// test_lora_steps: twenty steps of the reader's trainer beside PEFT and transformers' Trainer, of
// the original's versions and of recent ones (tools/dump_reference_lora_steps.py, which repeats the
// numbers below): token ids, losses, adapters. Prompts go through the prompt forms, passes of two
// prompts make a step, answers have one to nine tokens and the one that ends them.
// What was trained is then written, and read again; with keep=DIR tools/verify_export.py has PEFT
// read it, too.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/adapter.h"
#include "host/file.h"
#include "host/schedule.h"
#include "host/train_reader.h"
#include "host/weights.h"
#include "tests/check.h"
#include "tests/model_check.h"
#include "tests/reader_check.h"
#include "tests/reference.h"

enum { PATCH = 4, RANK = 3, STEPS = 20, WARMUP = 2, EACH = 2, PROMPTS = 6, IMAGES = 3 };
#define LR 1e-3

static const struct {
    int passage, query; // images; -1: none
    const char *caption, *question, *answer;
} prompts[PROMPTS] = {
    {0, 1, "opacity", "grade?", "no"}, {2, 0, "a clear lung", "grade?", "yes"},
    {-1, 2, "", "what is seen?", "a nodule"}, {1, 1, "mass", "grade?", "3"},
    {1, 2, "", "what is seen?", "no"}, {0, 0, "effusion, left", "grade?", "opacities"}};

// A forward for training of transformers 4.45 numbers the tokens of images like text.
static ReaderConfig config_of(PromptForm form, const Tokenizer *tokenizer, bool is_old) {
    const bool is_qwen = form == PROMPT_QWEN2VL;
    ReaderConfig config;
    CHECK(reader_preset(&config, is_qwen ? "tiny-qwen2vl" : "tiny-pixtral"), "no preset");
    config.V = tokenizer->vocab;
    config.image_id = tokenizer_id(tokenizer, is_qwen ? "<|image_pad|>" : "[IMG]");
    config.has_flat_positions = is_old;
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
    reader_set_lora(&config, (LoraConfig){.rank = RANK, .alpha = 2 * RANK}, true);
    return config;
}

typedef struct {
    Reference reference;
    Tokenizer *tokenizer;
    Reader *reader;
    PromptMaker maker;
    float *pixels[IMAGES];
    ReaderExample examples[PROMPTS];
} Fixture;

static ReaderImage image_of(const Fixture *f, int image) {
    char name[32];
    snprintf(name, sizeof name, "input/pixels%d", image);
    const SafeTensor *tensor = safetensors_find(&f->reference.store.all, name);
    return (ReaderImage){.rows = (int)tensor->shape[1] / PATCH,
                         .columns = (int)tensor->shape[2] / PATCH, .pixels = f->pixels[image]};
}

static Fixture *fixture_new(PromptForm form, const char *file, bool is_old) {
    Fixture *f = xcalloc(1, sizeof *f);
    f->reference = reference_open(file);
    int count;
    const char *const *specials = prompt_specials(form, &count);
    f->tokenizer = tokenizer_tiny_new(specials, count, NULL, 0);
    const ReaderConfig config = config_of(form, f->tokenizer, is_old);
    f->reader = reader_new(check_device(), DT_F32, &config, false);
    tensors_formula(&f->reader->tensors);
    f->maker = prompt_maker_new(form, f->tokenizer, &f->reader->config, 4096);
    for (int i = 0; i < IMAGES; i++) {
        char name[32];
        snprintf(name, sizeof name, "input/pixels%d", i);
        f->pixels[i] = reference_f32_new(&f->reference, name, NULL);
    }
    for (int b = 0; b < PROMPTS; b++) {
        ReaderExample *example = &f->examples[b];
        const size_t size = strlen(prompts[b].answer);
        int32_t *answer = xmalloc(size, sizeof *answer);
        example->answer_count = tokenizer_encode(f->tokenizer, prompts[b].answer, size, answer,
                                                 (int)size);
        example->answer = answer;
        example->prompt = (PromptInput){.query_image = image_of(f, prompts[b].query),
                                        .caption = prompts[b].caption,
                                        .question = prompts[b].question};
        if (prompts[b].passage >= 0) {
            example->prompt.passage_image = image_of(f, prompts[b].passage);
        }
    }
    return f;
}

static void fixture_free(Fixture *f) {
    for (int b = 0; b < PROMPTS; b++) {
        free((void *)f->examples[b].answer);
    }
    for (int i = 0; i < IMAGES; i++) {
        free(f->pixels[i]);
    }
    reader_free(f->reader);
    tokenizer_free(f->tokenizer);
    reference_free(&f->reference);
    free(f);
}

// The ids of the last pass are those that the chat template printed for its prompts.
static void expect_ids(const Fixture *f, const ReaderBatch *batch) {
    CHECK(batch->B == EACH, "%d prompts", batch->B);
    for (int b = 0; b < EACH; b++) {
        char name[32];
        size_t count;
        snprintf(name, sizeof name, "input/ids%d", PROMPTS - EACH + b);
        int32_t *want = reference_ids_new(&f->reference, name, &count);
        const int first = batch->cu_seqlens[b], n = batch->cu_seqlens[b + 1] - first;
        EXPECT((size_t)n == count && memcmp(want, batch->ids + first, count * sizeof *want) == 0,
               "%s: %d tokens, or others than the %zu wanted", name, n, count);
        free(want);
    }
}

// Every adapter within 1e-4 of the largest element of the original's. Returns how many there were.
static int expect_adapters(const Fixture *f) {
    const TensorList *list = &f->reader->tensors;
    int compared = 0;
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        if (!tensor->is_adapter) {
            continue;
        }
        char name[160];
        size_t count;
        snprintf(name, sizeof name, "adapter/%s", tensor->file);
        float *whole = reference_f32_new(&f->reference, name, &count);
        float *got = xmalloc(tensor->count, sizeof *got);
        tensor_read(list, tensor, got);
        const float *want = whole + (size_t)tensor->file_row * tensor->shape[1];
        double worst = 0, largest = 0;
        for (size_t k = 0; k < tensor->count; k++) {
            worst = check_worst(worst, fabs((double)got[k] - want[k]));
        }
        for (size_t k = 0; k < count; k++) {
            largest = fmax(largest, fabs((double)whole[k]));
        }
        EXPECT(worst <= 1e-4 * largest, "%s: off by %g of %g", tensor->name, worst, largest);
        free(whole);
        free(got);
        compared++;
    }
    return compared;
}

// ---- what is written ----
// (PROMPTS,V) logits of the first answer token of all prompts.
static float *logits_new(Fixture *f, Reader *reader) {
    ReaderBatch batch = reader_batch_new();
    for (int b = 0; b < PROMPTS; b++) {
        prompt_add(&f->maker, &batch, &f->examples[b].prompt, NULL, 0);
    }
    float *out = reader_logits_new(reader, &batch);
    reader_batch_free(&batch);
    return out;
}

// Base, adapter and logits below DIR/name; a second reader made of the files says the same.
static void expect_export(Fixture *f, const char *name) {
    const TensorList *list = &f->reader->tensors;
    char *dir = file_join_new(check_tmpdir(), name), *adapter = file_join_new(dir, "adapter"),
         *base = file_join_new(dir, "model.safetensors"),
         *expected = file_join_new(dir, "logits.safetensors");
    const AdapterConfig config = {.rank = RANK, .alpha = 2 * RANK};
    error_die(adapter, adapter_save(list, adapter, &config));
    error_die(base, weights_save(list, base, "", false, true));
    float *logits = logits_new(f, f->reader);
    const SafeTensor tensor = {.name = "logits", .type = SAFE_F32, .rank = 2, .data = logits,
                               .shape = {PROMPTS, (size_t)f->reader->config.V}};
    error_die(expected, safetensors_write(expected, &tensor, 1, NULL, 0));
    Reader *again = reader_new(check_device(), DT_F32, &f->reader->config, false);
    error_die(base, weights_load(&again->tensors, base, NULL, false));
    error_die(adapter, adapter_load(&again->tensors, adapter));
    float *others = logits_new(f, again);
    EXPECT(memcmp(logits, others, (size_t)PROMPTS * (size_t)again->config.V * sizeof *logits) == 0,
           "the reader that was read says something else");
    reader_free(again);
    free(logits);
    free(others);
    free(dir);
    free(adapter);
    free(base);
    free(expected);
}

// A step takes the emulator seconds. The first has rate 0, so the third sees what the second did.
static bool is_short(void) {
    return device_kind(check_device()) == DEVICE_EMU && !check_is_large();
}

static void expect_steps(PromptForm form, const char *file, bool is_old, int adapters) {
    Fixture *f = fixture_new(form, file, is_old);
    OptimConfig optim = optim_default();
    optim.weight_decay = 0;
    optim.clip = 1;
    ReaderTrainer trainer = reader_trainer_new(
        check_device(), f->reader, &f->maker, &optim,
        &(ReaderTrainConfig){.micro_batch = EACH, .is_micro_mean = is_old});
    double *want = reference_f64_new(&f->reference, "loss", NULL);
    const int steps = is_short() ? 3 : STEPS;
    EmuCalls first = {0};
    for (int step = 0; step < steps; step++) {
        if (step == 1 && emu_calls) {
            first = *emu_calls();
        }
        const double lr = schedule_rate(SCHEDULE_COSINE, LR, WARMUP, STEPS, step);
        const double loss = reader_trainer_step(&trainer, f->examples, PROMPTS, lr);
        const double off = fabs(loss / want[step] - 1);
        if (step == 0) {
            expect_ids(f, &trainer.batch);
            EXPECT(off <= 1e-6, "loss of step 1: %.9g, not %.9g", loss, want[step]);
        }
        EXPECT(off <= 1e-4, "loss of step %d: %.9g, not %.9g", step + 1, loss, want[step]);
    }
    if (device_kind(check_device()) == DEVICE_EMU) {
        expect_steady(&first, steps - 1); // the losses of a step, of all its passes at once
    }
    EXPECT(want[steps - 1] < (is_short() ? 0.998 : 0.95) * want[0], "nothing was learnt");
    const int compared = is_short() ? adapters : expect_adapters(f);
    EXPECT(compared == adapters, "%d adapters compared instead of %d", compared, adapters);
    if (!is_short()) {
        char *name = xformat_new("%.*s", (int)strlen(file) - 12, file); // without .safetensors
        expect_export(f, name);
        free(name);
    }
    free(want);
    reader_trainer_free(&trainer);
    fixture_free(f);
}

TEST_DEVICE(lora_steps) {
    if (!is_short() && CASE("qwen2vl, transformers 4.45.0, peft 0.12.0")) {
        expect_steps(PROMPT_QWEN2VL, "lora_steps_qwen2vl_old.safetensors", true, 48);
    }
    if (CASE("qwen2vl, recent")) {
        expect_steps(PROMPT_QWEN2VL, "lora_steps_qwen2vl_new.safetensors", false, 48);
    }
    if (!is_short() && CASE("pixtral, transformers 4.45.0, peft 0.12.0")) {
        expect_steps(PROMPT_PIXTRAL, "lora_steps_pixtral_old.safetensors", true, 56);
    }
    if (CASE("pixtral, recent")) {
        expect_steps(PROMPT_PIXTRAL, "lora_steps_pixtral_new.safetensors", false, 56);
    }
}
