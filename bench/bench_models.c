// bench_models: the tiny models at the sizes of the demo, forward alone and with backward.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "models/reader.h"
#include "models/retriever.h"

// ---- images and texts ----
typedef struct {
    Retriever *retriever;
    Run run;
    int B;
    float *pixels, *out, *dout;
    TextBatch texts;
} Towers;

static void image_pass(void *ctx) {
    Towers *towers = ctx;
    const size_t mark = arena_mark(towers->run.arena);
    EmbedImagesState state;
    embed_images_fwd(&towers->run, &towers->retriever->image, &state, towers->out, towers->pixels,
                     towers->B);
    if (towers->run.is_training) {
        embed_images_bwd(&towers->run, &towers->retriever->image, &state, towers->dout);
    }
    arena_release(towers->run.arena, mark);
}

static void text_pass(void *ctx) {
    Towers *towers = ctx;
    const size_t mark = arena_mark(towers->run.arena);
    EmbedTextsState state;
    embed_texts_fwd(&towers->run, &towers->retriever->text, &state, towers->out, &towers->texts);
    if (towers->run.is_training) {
        embed_texts_bwd(&towers->run, &towers->retriever->text, &state, towers->dout);
    }
    arena_release(towers->run.arena, mark);
}

// Times a pass over an arena of the planned size; a second run must give the first one's bits.
static void time_pass(const char *name, Towers *towers, bench_fn *pass, size_t outputs,
                      double flops) {
    for (int is_training = 0; is_training < 2; is_training++) {
        Arena plan = arena_plan();
        towers->run = run_new(bench_device(), DT_F32, &plan, is_training);
        towers->run.is_planning = true;
        pass(towers);
        Arena arena = arena_new(bench_device(), "bench", plan.peak);
        towers->run = run_new(bench_device(), DT_F32, &arena, is_training);
        pass(towers);
        const uint64_t first = xxh64(towers->out, outputs * sizeof(float), 0);
        pass(towers);
        CHECK(xxh64(towers->out, outputs * sizeof(float), 0) == first, "'%s' changed its bits",
              name);
        char shape[64];
        snprintf(shape, sizeof shape, "%s B=%d %s", name, towers->B,
                 is_training ? "fwd+bwd" : "fwd");
        bench_time(shape, flops * (is_training ? 3 : 1), 0, pass, towers, NULL, NULL, NULL);
        arena_free(&arena);
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
    towers.texts =
        (TextBatch){.B = B, .N = B * T, .max_T = T, .ids = ids, .cu_seqlens = cu_seqlens};
    for (towers.B = 8; towers.B <= B; towers.B *= 16) {
        // Multiply-adds of the matrices alone: patches, then 4 C^2 + 3 C F per row and block.
        const double row = 2.0 * 3 * (4 * 64 * 64 + 3 * 64 * 128);
        time_pass("image tower", &towers, image_pass, (size_t)towers.B * E,
                  towers.B * (17 * row + 2.0 * 16 * 192 * 64));
    }
    towers.B = B;
    time_pass("text tower T=9", &towers, text_pass, B * E,
              B * T * 2.0 * 2 * (4 * 64 * 64 + 3 * 64 * 128));
    device_release(bench_device(), towers.pixels);
    device_release(bench_device(), towers.out);
    device_release(bench_device(), towers.dout);
    retriever_free(towers.retriever);
}
