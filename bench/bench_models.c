// bench_models: the tiny models at the sizes of the demo, forward alone and with backward.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/model_pass.h"
#include "models/reader.h"
#include "models/retriever.h"

// ---- images and texts ----
typedef struct {
    ModelPass pass;
    Retriever *retriever;
    int B;
    float *pixels, *out, *dout;
    TextBatch texts;
} Towers;

static void image_pass(void *ctx) {
    Towers *towers = ctx;
    const size_t mark = arena_mark(towers->pass.run.arena);
    EmbedImagesState state;
    embed_images_fwd(&towers->pass.run, &towers->retriever->image, &state, towers->out,
                     towers->pixels, towers->B);
    if (towers->pass.run.is_training) {
        embed_images_bwd(&towers->pass.run, &towers->retriever->image, &state, towers->dout);
    }
    arena_release(towers->pass.run.arena, mark);
}

static void text_pass(void *ctx) {
    Towers *towers = ctx;
    const size_t mark = arena_mark(towers->pass.run.arena);
    EmbedTextsState state;
    embed_texts_fwd(&towers->pass.run, &towers->retriever->text, &state, towers->out,
                    &towers->texts);
    if (towers->pass.run.is_training) {
        embed_texts_bwd(&towers->pass.run, &towers->retriever->text, &state, towers->dout);
    }
    arena_release(towers->pass.run.arena, mark);
}

static void time_both(const char *name, Towers *towers, bench_fn *fn, double flops) {
    towers->pass.fn = fn;
    towers->pass.count = (size_t)towers->B * towers->retriever->config.image.E;
    for (int is_training = 0; is_training < 2; is_training++) {
        char shape[64];
        snprintf(shape, sizeof shape, "%s B=%d %s", name, towers->B,
                 is_training ? "fwd+bwd" : "fwd");
        model_pass_time(&towers->pass, shape, is_training, flops * (is_training ? 3 : 1), NULL);
    }
}

BENCH(towers) {
    RetrieverConfig config;
    retriever_preset(&config, "tiny");
    config.text.V = 64;
    Towers towers = {.retriever = retriever_new(bench_device(), DT_F32, &config, true)};
    tensors_init(&towers.retriever->tensors, 1);
    enum { B = 128, T = 9 };
    const size_t E = (size_t)config.image.E;
    towers.pixels = bench_normal(DT_F32, (size_t)B * 3 * 32 * 32);
    towers.out = bench_zeros(B * E * sizeof(float));
    towers.dout = bench_normal(DT_F32, B * E);
    int32_t ids[B * T], cu_seqlens[B + 1] = {0};
    for (int n = 0; n < B * T; n++) {
        ids[n] = n * 7 % 64;
    }
    for (int b = 0; b < B; b++) {
        cu_seqlens[b + 1] = (b + 1) * T;
    }
    towers.pass.owner = &towers;
    towers.pass.result = towers.out;
    towers.texts =
        (TextBatch){.B = B, .N = B * T, .max_T = T, .ids = ids, .cu_seqlens = cu_seqlens};
    for (towers.B = 8; towers.B <= B; towers.B *= 16) {
        time_both("image tower", &towers, image_pass,
                  stack_flops(&config.image.block, config.image.L, towers.B * 17, 17, 1, 2) +
                      towers.B * 2.0 * 16 * 192 * 64); // the patches
    }
    towers.B = B;
    time_both("text tower T=9", &towers, text_pass,
              stack_flops(&config.text.block, config.text.L, B * T, T, 1, 2));
    device_release(bench_device(), towers.pixels);
    device_release(bench_device(), towers.out);
    device_release(bench_device(), towers.dout);
    retriever_free(towers.retriever);
}

// ---- prompts ----
typedef struct {
    ModelPass pass;
    Reader *reader;
    ReaderBatch batch;
    void *logits, *dlogits;
} Prompts;

static void reader_pass(void *ctx) {
    Prompts *prompts = ctx;
    const size_t mark = arena_mark(prompts->pass.run.arena);
    Run *run = &prompts->pass.run;
    Reader *reader = prompts->reader;
    const size_t R = (size_t)prompts->batch.R, C = (size_t)reader->config.block.C;
    void *hidden = run_take(run, R, C), *dhidden = run_take(run, R, C);
    ReaderState state;
    reader_hidden_fwd(run, reader, &state, hidden, &prompts->batch);
    reader_head_fwd(run, reader, prompts->logits, hidden, (int)R);
    if (run->is_training) {
        reader_head_bwd(run, reader, dhidden, prompts->dlogits, hidden, (int)R);
        reader_hidden_bwd(run, reader, &state, dhidden);
    }
    arena_release(prompts->pass.run.arena, mark);
}

// B prompts of two images and twelve words, one wanted row each; given: the images' features, or
// NULL.
static void fill_prompts(Prompts *prompts, int B, const float *pixels, const void *given) {
    const int T = 20, image_id = prompts->reader->config.image_id;
    const ReaderImage image = {.rows = 4, .columns = 4, .pixels = pixels, .features = given};
    int32_t ids[20];
    for (int t = 0; t < T; t++) {
        ids[t] = t < 4 || (t >= 12 && t < 16) ? image_id : t;
    }
    prompts->batch = reader_batch_new();
    for (int b = 0; b < B; b++) {
        const int32_t wanted = T - 1;
        reader_batch_add(&prompts->batch, &prompts->reader->config, ids, T,
                         (ReaderImage[]){image, image}, 2, &wanted, 1);
    }
}

static void time_reader(const char *name, int rank, bool is_training, bool is_given, int B) {
    ReaderConfig config;
    CHECK(reader_preset(&config, "tiny-qwen2vl"), "no preset '%s'", "tiny-qwen2vl");
    config.V = 64;
    config.image_id = 63;
    reader_set_lora(&config, (LoraConfig){.rank = rank, .alpha = 16}, true);
    Prompts prompts = {.reader = reader_new(bench_device(), DT_F32, &config, rank == 0)};
    tensors_init(&prompts.reader->tensors, 1);
    tensors_pack(&prompts.reader->tensors, SIZE_MAX);
    float *pixels = bench_normal(DT_F32, 3 * 16 * 16);
    void *features = bench_normal(DT_F32, 4 * 64);
    fill_prompts(&prompts, B, pixels, is_given ? features : NULL);
    prompts.logits = bench_zeros((size_t)B * 64 * sizeof(float));
    prompts.dlogits = bench_normal(DT_F32, (size_t)B * 64);
    prompts.pass = (ModelPass){.fn = reader_pass, .owner = &prompts, .result = prompts.logits,
                               .count = (size_t)B * 64};
    // Multiply-adds of the matrices: vision rows, merged rows, language rows.
    const double vision = is_given ? 0 : 32 * 2.0 * (4 * 48 * 48 + 2 * 48 * 96);
    const double merger = is_given ? 0 : 8 * (192.0 * 192 + 192 * 64);
    const double language = 20 * 3.0 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128);
    model_pass_time(&prompts.pass, name, is_training,
                    2 * (vision + merger + language) * B * (is_training ? rank ? 2 : 3 : 1), NULL);
    float logits[2][64]; // of equal prompts, so they must be the same bits
    device_copy_out(bench_device(), logits[0], prompts.logits, sizeof logits[0]);
    device_copy_out(bench_device(), logits[1],
                    dtype_at(DT_F32, prompts.logits, (size_t)(B - 1) * 64), sizeof logits[1]);
    CHECK(memcmp(logits[0], logits[1], sizeof logits[0]) == 0, "logits %g and %g", logits[0][0],
          logits[1][0]);
    reader_batch_free(&prompts.batch);
    reader_free(prompts.reader);
    device_release(bench_device(), pixels);
    device_release(bench_device(), features);
    device_release(bench_device(), prompts.logits);
    device_release(bench_device(), prompts.dlogits);
}

BENCH(reader) {
    time_reader("B=64 T=20 all weights, fwd+bwd", 0, true, false, 64);
    time_reader("B=64 T=20 adapters, fwd+bwd", 8, true, false, 64);
    time_reader("B=64 T=20 frozen, fwd", 8, false, false, 64);
    time_reader("B=64 T=20 frozen, fwd, features kept", 8, false, true, 64);
    time_reader("B=4 T=20 frozen, fwd, features kept", 8, false, true, 4);
}
