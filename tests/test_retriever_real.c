// test_retriever_real: jina-clip-v1 in its published size with random weights in bf16: embeddings,
// one training step of a query head, and memory against the plan. Gigabytes: only with large=1.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/memory_plan.h"
#include "host/optim.h"
#include "tests/check.h"

enum { PICTURES = 2, TEXTS = 2, TOKENS = 64 };
static const DType t = DT_BF16;

// The structure of the retriever and of its head, for the plan alone.
static MemoryPlan plan_of(const RetrieverConfig *config, const TextBatch *texts) {
    MemoryPlan plan = {0}, embedding = {0}, step = {0};
    Retriever retriever;
    TensorList list = tensors_new();
    retriever_build(&retriever, config);
    ImageTower head = image_tower_new(&list, &config->image);
    image_tower_unfreeze(&list, &head);
    memory_plan_tensors(&plan, &retriever.tensors, t, 0);
    memory_plan_tensors(&plan, &list, t, 0);
    memory_plan_images(&embedding, &retriever.image, check_device(), t, PICTURES, false);
    memory_plan_texts(&embedding, &retriever.text, check_device(), t, texts, false);
    memory_plan_images(&step, &head, check_device(), t, PICTURES, true);
    plan.activations = embedding.activations + step.activations; // arenas of their own
    image_tower_free(&head);
    tensors_free(&list);
    retriever_unbuild(&retriever);
    return plan;
}

// Unit rows in f32 of one pass; the arena stays.
static void embed(Arena *arena, Retriever *retriever, const float *pixels, const TextBatch *texts,
                  float *out) {
    const int E = retriever->config.image.E;
    Run run = run_new(check_device(), t, arena, false);
    EmbedImagesState images_state;
    EmbedTextsState texts_state;
    const size_t mark = arena_mark(arena);
    void *images = run_take(&run, PICTURES, (size_t)E);
    embed_images_fwd(&run, &retriever->image, &images_state, images, pixels, PICTURES);
    dtype_widen(out, t, images, (size_t)PICTURES * E);
    arena_release(arena, mark);
    void *rows = run_take(&run, TEXTS, (size_t)E);
    embed_texts_fwd(&run, &retriever->text, &texts_state, rows, texts);
    dtype_widen(out + PICTURES * E, t, rows, (size_t)TEXTS * E);
}

// Descends along sum dout h(v) for a made-up dout; returns the rows before.
static void train(Arena *arena, Head *head, Optim *optim, const float *pixels, float *out) {
    const int E = head->tower.config.E;
    Run run = run_new(check_device(), t, arena, true);
    EmbedImagesState state;
    void *rows = run_take(&run, PICTURES, (size_t)E), *dout = run_take(&run, PICTURES, (size_t)E);
    float *weights = xmalloc((size_t)PICTURES * E, sizeof *weights);
    for (int i = 0; i < PICTURES * E; i++) {
        weights[i] = (float)((i * 37) % 11) - 5;
    }
    dtype_narrow(t, dout, weights, (size_t)PICTURES * E);
    embed_images_fwd(&run, &head->tower, &state, rows, pixels, PICTURES);
    dtype_widen(out, t, rows, (size_t)PICTURES * E);
    embed_images_bwd(&run, &head->tower, &state, dout);
    optim_step(optim, 1e-4);
    free(weights);
}

static void expect_unit(const float *rows, int n, int E) {
    for (int i = 0; i < n; i++) {
        double squares = 0;
        for (int e = 0; e < E; e++) {
            squares += (double)rows[i * E + e] * rows[i * E + e];
        }
        // Every element is rounded to bf16: relative 2^-9.
        EXPECT(fabs(sqrt(squares) - 1) <= 0x1p-8, "row %d has length %g", i, sqrt(squares));
    }
}

static float *noise_new(size_t count) {
    float *pixels = xmalloc(count, sizeof *pixels);
    Rng rng = check_rng(1);
    for (size_t i = 0; i < count; i++) {
        pixels[i] = (float)(2 * rng_uniform(&rng) - 1);
    }
    return pixels;
}

TEST(retriever_real_jina) {
    if (!check_is_large()) {
        check_skip("%s", "large=1 not given");
        return;
    }
    check_time_limit(900);
    RetrieverConfig config;
    CHECK(retriever_preset(&config, "jina-clip-v1"), "no preset '%s'", "jina-clip-v1");
    const int E = config.image.E;
    int32_t ids[TEXTS * TOKENS], ends[TEXTS + 1] = {0, TOKENS / 2, TEXTS * TOKENS};
    for (int i = 0; i < TEXTS * TOKENS; i++) {
        ids[i] = 1 + (i * 7919) % 30000;
    }
    const TextBatch texts = {.B = TEXTS, .N = TEXTS * TOKENS, .max_T = TEXTS * TOKENS - TOKENS / 2,
                             .ids = ids, .cu_seqlens = ends};
    const MemoryPlan plan = plan_of(&config, &texts);
    memory_plan_print(stderr, &plan);

    const size_t before = memory_anonymous();
    float *pixels = noise_new((size_t)PICTURES * 3 * 224 * 224);
    Retriever *retriever = retriever_new(check_device(), t, &config, false);
    tensors_init(&retriever->tensors, 1);
    Head *head = head_new(check_device(), t, &config.image, true);
    EXPECT(tensors_copy(&head->tensors, &retriever->tensors) == head->tensors.count, "a copy");
    MemoryPlan embedding = {0}, step = {0};
    memory_plan_images(&embedding, &retriever->image, check_device(), t, PICTURES, false);
    memory_plan_texts(&embedding, &retriever->text, check_device(), t, &texts, false);
    memory_plan_images(&step, &head->tower, check_device(), t, PICTURES, true);
    Arena first = arena_new(check_device(), "embedding", embedding.activations),
          second = arena_new(check_device(), "training", step.activations);
    float *rows = xmalloc((size_t)(2 * PICTURES + TEXTS) * E, sizeof *rows),
          *live = rows + (size_t)(PICTURES + TEXTS) * E;
    double start = seconds_now();
    embed(&first, retriever, pixels, &texts, rows);
    const double embed_seconds = seconds_now() - start;
    expect_unit(rows, PICTURES + TEXTS, E);
    const OptimConfig defaults = optim_default();
    Optim optim = optim_new(&head->tensors, &defaults);
    start = seconds_now();
    train(&second, head, &optim, pixels, live);
    const double step_seconds = seconds_now() - start;
    EXPECT(memcmp(rows, live, (size_t)PICTURES * E * sizeof *rows) == 0,
           "a copy gives %g instead of %g", live[0], rows[0]);
    const OptimState state = optim_read(&optim);
    EXPECT(state.count.step == 1 && state.norm > 0, "%d steps, gradient of length %g",
           state.count.step, (double)state.norm);
    const double used = (double)(memory_anonymous() - before),
                 planned = (double)memory_plan_total(&plan);
    LOG(INFO, "%d pictures and %d texts: %.1f s; a training step of the head: %.1f s; %.0f MiB of "
        "%.0f planned", PICTURES, TEXTS, embed_seconds, step_seconds, used / 1048576,
        planned / 1048576);
    EXPECT(fabs(used - planned) <= 0.1 * planned, "%.0f bytes used, %.0f planned", used, planned);
    optim_free(&optim);
    arena_free(&first);
    arena_free(&second);
    head_free(head);
    retriever_free(retriever);
    free(rows);
    free(pixels);
}
