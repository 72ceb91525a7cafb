// reader_check: see reader_check.h.
#include "reader_check.h"

#include <stdlib.h>

ReaderFixture *reader_fixture_new(Device *dev, const ReaderConfig *config, DType t,
                                  bool is_base_trainable, const int sides[2][2]) {
    ReaderFixture *fixture = xcalloc(1, sizeof *fixture);
    fixture->reader = reader_new(dev, t, config, is_base_trainable);
    tensors_init(&fixture->reader->tensors, check_seed());
    tensors_disturb(&fixture->reader->tensors, 0.1);
    tensors_pack(&fixture->reader->tensors, SIZE_MAX);
    Rng rng = check_rng(1);
    for (int i = 0; i < 2; i++) {
        const int P = config->vision.P, rows = sides[i][0], columns = sides[i][1];
        const size_t n = (size_t)3 * rows * P * columns * P;
        float *pixels = xmalloc(n, sizeof *pixels);
        for (size_t k = 0; k < n; k++) {
            pixels[k] = (float)rng_normal(&rng);
        }
        fixture->image[i] = (ReaderImage){.rows = rows, .columns = columns, .pixels = pixels};
    }
    fixture->batch = reader_batch_new();
    return fixture;
}

void reader_fixture_free(ReaderFixture *fixture) {
    for (int i = 0; i < 2; i++) {
        free((void *)(uintptr_t)fixture->image[i].pixels);
    }
    reader_batch_free(&fixture->batch);
    reader_free(fixture->reader);
    free(fixture);
}

LaidPrompt lay_prompt(const ReaderFixture *fixture, const char *layout, int which) {
    const ReaderConfig *config = &fixture->reader->config;
    LaidPrompt out = {.T = 0};
    for (const char *c = layout; *c; c++) {
        const bool is_image = *c >= '0' && *c <= '1';
        int count = 1;
        if (is_image) {
            out.image[out.images] = fixture->image[*c - '0'];
            count = vision_tokens(&config->vision, &out.image[out.images++]);
        }
        for (; count > 0; count--, out.T++) {
            CHECK(out.T < PROMPT_ROOM && out.images <= 4, "'%s' is too long", layout);
            out.ids[out.T] = is_image ? config->image_id : (3 * out.T + which) % config->image_id;
        }
    }
    return out;
}

void reader_pass(Run *run, Reader *reader, const ReaderBatch *batch, void *logits,
                 const void *dlogits) {
    const size_t R = (size_t)batch->R, C = (size_t)reader->config.block.C;
    const size_t mark = arena_mark(run->arena);
    ReaderState state;
    void *hidden = run_take(run, R, C), *dhidden = dlogits ? run_take(run, R, C) : NULL;
    const size_t taken = arena_mark(run->arena);
    reader_hidden_fwd(run, reader, &state, hidden, batch);
    EXPECT(run->is_training || arena_mark(run->arena) == taken, "a forward alone kept %zu bytes",
           arena_mark(run->arena) - taken);
    reader_head_fwd(run, reader, logits, hidden, batch->R);
    if (dlogits) {
        reader_head_bwd(run, reader, dhidden, dlogits, hidden, batch->R);
        reader_hidden_bwd(run, reader, &state, dhidden);
    }
    arena_release(run->arena, mark);
}

static void pass(void *ctx, Run *run, void *out, const void *dout) {
    ReaderFixture *fixture = ctx;
    reader_pass(run, fixture->reader, &fixture->batch, out, dout);
}

ModelUnderTest reader_under_test(ReaderFixture *fixture) {
    return (ModelUnderTest){.list = &fixture->reader->tensors, .pass = pass, .ctx = fixture,
                            .count = (size_t)fixture->batch.R * fixture->reader->config.V};
}

float *reader_logits_new(Reader *reader, const ReaderBatch *batch) {
    ReaderFixture fixture = {.reader = reader, .batch = *batch};
    const ModelUnderTest model = reader_under_test(&fixture);
    float *out = xmalloc(model.count, sizeof *out);
    model_run(&model, out, NULL, false);
    return out;
}
