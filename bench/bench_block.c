// bench_block: the transformer block, and a ViT-B/16 from pixels to an embedding, forward alone and
// forward with backward, beside PyTorch. Work is counted in products: rows times matrices, and the
// scores; a backward needs two products for each of the forward's, attention five for its two.
#include <stdio.h>
#include <stdlib.h>

#include "bench/model_pass.h"
#include "bench/peer_torch.h"
#include "models/image_tower.h"

// Of L blocks over B sequences of T rows.
static double pass_flops(const BlockConfig *c, int L, int B, int T, bool is_training) {
    return stack_flops(c, L, (double)B * T, T, is_training ? 3 : 1, is_training ? 7 : 2);
}

// ---- one block ----
typedef struct {
    ModelPass pass;
    BlockStack stack;
    BlockBatch batch;
    float *x, *dout;     // (N,C)
    float *in, *out, *d; // what the passes spoil
} OneBlock;

static void block_pass(void *ctx) {
    OneBlock *b = ctx;
    Run *run = &b->pass.run;
    const size_t mark = arena_mark(run->arena), bytes = b->pass.count * sizeof(float);
    StackState state;
    if (!run->is_planning) {
        device_copy(run->dev, b->in, b->x, bytes);
    }
    void *out = stack_fwd(run, &b->stack, &state, b->in, &b->batch);
    if (!run->is_planning) {
        device_copy(run->dev, b->out, out, bytes);
    }
    if (run->is_training) {
        if (!run->is_planning) {
            device_copy(run->dev, b->d, b->dout, bytes);
        }
        stack_bwd(run, &b->stack, &state, b->d, true);
    }
    arena_release(run->arena, mark);
}

static void bench_block(const BlockConfig *config, const char *name, int B, int T, bool has_peer) {
    const int C = config->C, N = B * T;
    TensorList tensors = tensors_new();
    OneBlock b = {.stack = stack_new(&tensors, config, 1, "blocks.")};
    tensors_mark(&tensors, "", true);
    tensors_allocate(&tensors, bench_device(), DT_F32);
    tensors_init(&tensors, 1);
    int32_t *ends = xmalloc((size_t)B + 1, sizeof *ends);
    for (int i = 0; i <= B; i++) {
        ends[i] = i * T;
    }
    float *tables[2];
    for (int i = 0; i < 2; i++) {
        tables[i] = bench_zeros((size_t)N * config->D * sizeof(float)); // any angles cost the same
    }
    b.batch = (BlockBatch){.B = B, .N = N, .max_T = T, .cu_seqlens = ends, .cosine = tables[0],
                           .sine = tables[1]};
    b.x = bench_normal(DT_F32, (size_t)N * C);
    b.dout = bench_normal(DT_F32, (size_t)N * C);
    float **const spoiled[] = {&b.in, &b.out, &b.d};
    for (int i = 0; i < 3; i++) {
        *spoiled[i] = bench_zeros((size_t)N * C * sizeof(float));
    }
    b.pass = (ModelPass){.fn = block_pass, .owner = &b, .result = b.out, .count = (size_t)N * C};
    for (int is_training = 0; is_training < 2; is_training++) {
        const char *what = is_training ? "fwd+bwd" : "fwd";
        bench_fn *peer = has_peer ? peer_torch("block_%s %d %d %d %d %d",
                                               is_training ? "train" : "fwd", B, T, C, config->H,
                                               config->F)
                                  : NULL;
        char shape[96];
        snprintf(shape, sizeof shape, "%s %dx%dx%d F=%d %s f32", name, B, T, C, config->F, what);
        model_pass_time(&b.pass, shape, is_training, pass_flops(config, 1, B, T, is_training),
                        peer);
    }
    void *const all[] = {b.x, b.dout, b.in, b.out, b.d, tables[0], tables[1]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        device_release(bench_device(), all[i]);
    }
    free(ends);
    stack_free(&b.stack);
    tensors_free(&tensors);
}

BENCH(block) {
    ImageTowerConfig vit, tiny;
    CHECK(image_tower_preset(&vit, "biomedclip"), "no preset");
    CHECK(image_tower_preset(&tiny, "tiny"), "no preset");
    bench_block(&vit.block, "ViT-B", 1, 197, true);
    bench_block(&vit.block, "ViT-B", 4, 197, true);
    bench_block(&tiny.block, "tiny", 8, 17, false);   // a head's step in the demo
    bench_block(&tiny.block, "tiny", 128, 17, false); // pretraining's
}

// ---- a tower ----
typedef struct {
    ModelPass pass;
    ImageTower tower;
    int B;
    float *pixels;
    void *out, *dout;
} Vit;

static void vit_pass(void *ctx) {
    Vit *vit = ctx;
    const size_t mark = arena_mark(vit->pass.run.arena);
    ImageTowerState state;
    image_tower_fwd(&vit->pass.run, &vit->tower, &state, vit->out, vit->pixels, vit->B);
    if (vit->pass.run.is_training) {
        image_tower_bwd(&vit->pass.run, &vit->tower, &state, vit->dout);
    }
    arena_release(vit->pass.run.arena, mark);
}

// The forward has frozen weights, as encoding has; the other trains every tensor.
static void bench_vit(const char *preset, DType t, int B, bool is_training, bool has_peer) {
    ImageTowerConfig config;
    CHECK(image_tower_preset(&config, preset), "no preset '%s'", preset);
    const size_t S = (size_t)config.image_size, outputs = (size_t)B * config.E;
    TensorList tensors = tensors_new();
    Vit vit = {.tower = image_tower_new(&tensors, &config), .B = B};
    tensors_mark(&tensors, "", is_training);
    tensors_allocate(&tensors, bench_device(), t);
    model_fill(&tensors);
    vit.pixels = bench_normal(DT_F32, (size_t)B * 3 * S * S);
    vit.dout = bench_normal(t, outputs);
    vit.out = bench_zeros(outputs * dtype_size(t));
    vit.pass = (ModelPass){.fn = vit_pass, .owner = &vit, .t = t, .result = vit.out,
                           .count = outputs};
    const int T = vit.tower.T, C = config.block.C;
    const double ends = 2.0 * B * C * ((T - 1) * (double)vit.tower.patch.in + config.E);
    const double flops =
        pass_flops(&config.block, config.L, B, T, is_training) + (is_training ? 2 : 1) * ends;
    bench_fn *peer = has_peer ? peer_torch("vit_%s %d", is_training ? "train" : "fwd", B) : NULL;
    char shape[64];
    snprintf(shape, sizeof shape, "B=%d %s %s", B, is_training ? "fwd+bwd" : "fwd", dtype_name(t));
    model_pass_time(&vit.pass, shape, is_training, flops, peer);
    device_release(bench_device(), vit.pixels);
    device_release(bench_device(), vit.dout);
    device_release(bench_device(), vit.out);
    image_tower_free(&vit.tower);
    tensors_free(&tensors);
}

BENCH(vit_b16) {
    bench_vit("biomedclip", DT_F32, 1, false, true);
    bench_vit("biomedclip", DT_F32, 1, true, true);
}

BENCH_REAL(vit_b16) {
    const char *const preset = bench_is_shrunk() ? "tiny" : "biomedclip";
    bench_vit(preset, bench_dtype(), bench_shrunk(256), false, false);
    bench_vit(preset, bench_dtype(), bench_shrunk(256), true, false);
}
