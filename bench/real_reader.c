// real_reader: Qwen2-VL-7B with random weights, scoring 100 prompts of 350 tokens and taking a
// micro-step of LoRA on three.
//
// Prompts are those of the method: a retrieved image, its text, the query's image, the question;
// images of 252 x 252 pixels are 81 tokens. 100 prompts hold 102 images, for two queries with 50
// passages each: every image goes through the vision tower once. One row of logits is wanted of a
// prompt that is scored, ten of one that is trained on. The step ends with the gradients: the
// optimiser's part is the bench adamw, once in eight such steps.
#include <stdio.h>
#include <stdlib.h>

#include "bench/model_pass.h"
#include "models/reader.h"

// ---- prompts ----
enum { GROUP = 25 }; // prompts of one pass: 8750 tokens, enough to be bound by arithmetic
typedef struct {
    ModelPass pass;
    Reader *reader;
    int prompts, T, wanted, images; // images: distinct ones; 0: each prompt brings its own
    float *pixels;                  // of one image, on the host
    void *features;                 // (images, tokens of an image, C)
    ReaderBatch *batch;             // (groups)
    int groups;
    void *logits, *dlogits; // (prompts * wanted, V)
} Prompts;

static int image_side(void) { return bench_is_shrunk() ? 4 : 18; } // patches

static ReaderImage image_of(const Prompts *x, int number) {
    ReaderImage image = {.rows = image_side(), .columns = image_side(), .pixels = x->pixels};
    if (x->images) {
        const size_t tokens = (size_t)vision_tokens(&x->reader->config.vision, &image);
        image.features = dtype_at(x->pass.t, x->features,
                                  (size_t)number * tokens * (size_t)x->reader->config.block.C);
    }
    return image;
}

// Prompt `number`: its own image first, then the one of its query.
static void add_prompt(Prompts *x, ReaderBatch *batch, int number) {
    const ReaderConfig *config = &x->reader->config;
    const int queries = 2, query = number % queries;
    const ReaderImage image[2] = {image_of(x, queries + number), image_of(x, query)};
    const int tokens = vision_tokens(&config->vision, image), text = x->T - 2 * tokens;
    int32_t *ids = xmalloc((size_t)x->T, sizeof *ids), wanted[16];
    for (int t = 0; t < x->T; t++) {
        const bool is_image = t < tokens || (t >= tokens + text / 2 && t < 2 * tokens + text / 2);
        ids[t] = is_image ? config->image_id : (number * 31 + t * 7) % (config->V - 1);
    }
    for (int w = 0; w < x->wanted; w++) {
        wanted[w] = x->T - x->wanted + w;
    }
    reader_batch_add(batch, config, ids, x->T, image, 2, wanted, x->wanted);
    free(ids);
}

static void prompts_pass(void *ctx) {
    Prompts *x = ctx;
    Run *run = &x->pass.run;
    const size_t mark = arena_mark(run->arena), V = (size_t)x->reader->config.V;
    if (x->images) {
        ReaderImage *image = xmalloc((size_t)x->images, sizeof *image);
        for (int i = 0; i < x->images; i++) {
            image[i] = image_of(x, i);
            image[i].features = NULL; // that is what this computes
        }
        reader_vision_fwd(run, x->reader, x->features, image, x->images);
        free(image);
        arena_release(run->arena, mark);
    }
    size_t row = 0;
    for (int g = 0; g < x->groups; g++) {
        ReaderState state;
        const int R = x->batch[g].R;
        const size_t C = (size_t)x->reader->config.block.C;
        void *hidden = run_take(run, (size_t)R, C), *dhidden = run_take(run, (size_t)R, C);
        reader_hidden_fwd(run, x->reader, &state, hidden, &x->batch[g]);
        reader_head_fwd(run, x->reader, dtype_at(run->t, x->logits, row * V), hidden, R);
        if (run->is_training) {
            reader_head_bwd(run, x->reader, dhidden, dtype_at(run->t, x->dlogits, row * V), hidden,
                            R);
            reader_hidden_bwd(run, x->reader, &state, dhidden);
        }
        arena_release(run->arena, mark);
        row += (size_t)R;
    }
}

// Twice the multiply-adds of a pass; a backward through frozen weights is one more product of each.
static double prompts_flops(const Prompts *x) {
    const ReaderConfig *c = &x->reader->config;
    const VisionConfig *v = &c->vision;
    const double rows = (double)x->prompts * x->T, patches = image_side() * image_side();
    const double images = x->images ? x->images : 2 * x->prompts, cell = v->merge * v->merge;
    const double wide = cell * v->block.C; // of the merger
    const bool is_training = x->dlogits;
    const int passes = is_training ? 2 : 1, products = is_training ? 7 : 2;
    const double merger = images * patches / cell * 2 * wide * (wide + v->C_out);
    return stack_flops(&c->block, c->L, rows, x->T, passes, products) +
           stack_flops(&v->block, v->L, images * patches, patches, passes, products) +
           passes * (merger + 2.0 * x->prompts * x->wanted * c->block.C * c->V);
}

static void bench_prompts(int prompts, int wanted, int rank) {
    const DType t = bench_dtype();
    const bool is_training = rank > 0, is_tiny = bench_is_shrunk();
    ReaderConfig config;
    CHECK(reader_preset(&config, is_tiny ? "tiny-qwen2vl" : "qwen2-vl-7b"), "no preset");
    if (is_tiny) {
        config.V = 64;
        config.image_id = 63;
    }
    reader_set_lora(&config, (LoraConfig){.rank = rank, .alpha = 16}, true);
    Prompts x = {.reader = reader_new(bench_device(), t, &config, false), .prompts = prompts,
                 .T = is_tiny ? 30 : 350, .wanted = wanted, .images = is_training ? 0 : prompts + 2,
                 .groups = (prompts + GROUP - 1) / GROUP};
    model_fill(&x.reader->tensors);
    x.pass = (ModelPass){.fn = prompts_pass, .owner = &x, .t = t,
                         .count = (size_t)(prompts * wanted) * (size_t)config.V};
    const size_t side = (size_t)(image_side() * config.vision.P), pixels = 3 * side * side;
    x.pixels = xmalloc(pixels, sizeof *x.pixels);
    Rng rng = rng_new(1, RNG_TEST, 1, 0);
    for (size_t i = 0; i < pixels; i++) {
        x.pixels[i] = (float)rng_normal(&rng);
    }
    const size_t tokens = (size_t)(image_side() * image_side() / 4);
    x.features = bench_zeros((size_t)x.images * tokens * (size_t)config.block.C * dtype_size(t));
    x.logits = bench_zeros(x.pass.count * dtype_size(t));
    x.dlogits = is_training ? bench_normal(t, x.pass.count) : NULL;
    x.pass.result = x.logits;
    x.batch = xmalloc((size_t)x.groups, sizeof *x.batch);
    for (int g = 0; g < x.groups; g++) {
        x.batch[g] = reader_batch_new();
        for (int p = g * GROUP; p < prompts && p < (g + 1) * GROUP; p++) {
            add_prompt(&x, &x.batch[g], p);
        }
    }
    char shape[96], adapters[32] = "";
    if (rank > 0) {
        snprintf(adapters, sizeof adapters, " rank=%d", rank);
    }
    snprintf(shape, sizeof shape, "prompts=%d T=%d%s %s", prompts, x.T, adapters, dtype_name(t));
    model_pass_time(&x.pass, shape, is_training, prompts_flops(&x), NULL);
    for (int g = 0; g < x.groups; g++) {
        reader_batch_free(&x.batch[g]);
    }
    free(x.batch);
    free(x.pixels);
    device_release(bench_device(), x.features);
    device_release(bench_device(), x.logits);
    device_release(bench_device(), x.dlogits);
    reader_free(x.reader);
}

BENCH_REAL(qwen2vl_7b_score) { bench_prompts(bench_is_shrunk() ? 30 : 100, 1, 0); }
BENCH_REAL(qwen2vl_7b_lora) { bench_prompts(3, 10, 8); }
