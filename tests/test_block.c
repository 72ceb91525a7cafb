// test_block: the block in mixtures of choices that no tower has, with the gradient of its input
// too.
#include "models/block.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "tests/model_check.h"

enum { B = 3, N = 9, C = 8, D = 4, LAYERS = 2 };
static const int32_t cu_seqlens[B + 1] = {0, 4, 5, 9};

// The input is a tensor like any other, so that its gradient is checked with the rest.
typedef struct {
    TensorList list;
    BlockStack stack;
    Tensor *x;
    bool wants_dx;
} Fixture;

static const BlockNames names = {
#define X(part) .part = {.module = #part},
    BLOCK_NORMS(X) BLOCK_LINEARS(X)
#undef X
};

static Fixture fixture_new(const BlockConfig *config, DType t) {
    Fixture fixture = {.list = tensors_new(), .wants_dx = true};
    fixture.x = tensors_add(&fixture.list, "x", init_normal(1), 2, (int[]){N, C});
    fixture.stack = stack_new(&fixture.list, config, LAYERS, "block.");
    tensors_mark(&fixture.list, "", true);
    tensors_allocate(&fixture.list, check_device(), t);
    tensors_init(&fixture.list, check_seed());
    tensors_disturb(&fixture.list, 0.2);
    return fixture;
}

static void fixture_free(Fixture *fixture) {
    stack_free(&fixture->stack);
    tensors_free(&fixture->list);
}

static void pass(void *ctx, Run *run, void *out, const void *dout) {
    Fixture *fixture = ctx;
    const BlockConfig *config = &fixture->stack.block[0].config;
    const size_t start = arena_mark(run->arena);
    BlockBatch batch = {.B = B, .N = N, .max_T = 4};
    batch.cu_seqlens = run_take_ids(run, cu_seqlens, B + 1);
    if (config->has_rope) {
        const int32_t positions[N] = {0, 1, 2, 3, 0, 7, 8, 9, 10};
        int32_t *on_device = run_take_ids(run, positions, N);
        float *cosine = run_take_f32(run, N * D / 2), *sine = run_take_f32(run, N * D / 2);
        if (!run->is_planning) {
            run->op->rope_table(run->dev, cosine, sine, on_device, N, D, ROPE_1D, 100, NULL);
        }
        batch.cosine = cosine;
        batch.sine = sine;
    }
    void *x = run_take(run, N, C), *d = run_take(run, N, C);
    const size_t bytes = N * C * dtype_size(run->t);
    if (!run->is_planning) {
        device_copy(run->dev, x, fixture->x->data, bytes);
    }
    StackState state;
    const void *last = stack_fwd(run, &fixture->stack, &state, x, &batch);
    if (!run->is_planning) {
        device_copy(run->dev, out, last, bytes);
    }
    if (dout) {
        if (!run->is_planning) {
            device_copy(run->dev, d, dout, bytes);
        }
        stack_bwd(run, &fixture->stack, &state, d, fixture->wants_dx);
        if (!run->is_planning && fixture->wants_dx) {
            run->op->cast(run->dev, DT_F32, fixture->x->grad, run->t, d, N * C);
        }
    }
    arena_release(run->arena, start);
}

static ModelUnderTest model_of(Fixture *fixture) {
    return (ModelUnderTest){.list = &fixture->list, .pass = pass, .ctx = fixture, .count = N * C};
}

// Each choice is taken by some mixture, and mixed with others than in the towers.
static BlockConfig mixture(int which) {
    BlockConfig config = {
        .C = C, .H = 3, .Hkv = which & 1 ? 1 : 3, .D = D, .F = 10,
        .norm = which & 2 ? NORM_RMS : NORM_LAYER, .eps = 1e-5f, .is_post_norm = which & 4,
        .has_inner_norm = which & 1, .has_mlp_norm = (which & 3) == 2, .is_causal = which & 2,
        .has_alibi = which & 1, .has_rope = (which & 5) != 1,
        .pairing = which & 2 ? ROPE_HALF : ROPE_INTERLEAVED, .is_gated = (which & 6) != 2,
        .act = (Activation)(which % ACT_COUNT), .names = &names,
    };
    config.has_q_bias = config.has_down_bias = which & 2;
    config.has_k_bias = config.has_o_bias = config.has_up_bias = which & 1;
    config.has_v_bias = config.has_gate_bias = which & 4;
    config.lora = (LoraConfig){.rank = which & 4 ? 2 : 0, .alpha = 3};
    return config;
}

TEST(block) {
    check_time_limit(120);
    for (int which = 0; which < 8; which++) {
        const BlockConfig config = mixture(which);
        if (CASE("gradients mixture=%d", which)) {
            Fixture fixture = fixture_new(&config, DT_F32);
            const ModelUnderTest model = model_of(&fixture);
            expect_model_gradients(&model);
            fixture_free(&fixture);
        }
        for (int t = DT_F32; t < DT_COUNT; t++) {
            if (CASE("recompute mixture=%d t=%s", which, dtype_name((DType)t))) {
                Fixture fixture = fixture_new(&config, (DType)t);
                const ModelUnderTest model = model_of(&fixture);
                expect_recompute_equal(&model);
                fixture_free(&fixture);
            }
        }
    }
}

// Where nobody wants the input's gradient, the parameters' are the same bits.
TEST(block_without_dx) {
    for (int which = 0; which < 8; which++) {
        if (CASE("mixture=%d", which)) {
            const BlockConfig config = mixture(which);
            Fixture fixture = fixture_new(&config, DT_F32);
            const ModelUnderTest model = model_of(&fixture);
            const size_t n = fixture.list.trainable_count;
            float *grad[2], out[N * C], weight[N * C];
            for (int i = 0; i < N * C; i++) {
                weight[i] = (float)(i % 5) - 2;
            }
            for (int with = 0; with < 2; with++) {
                grad[with] = xmalloc(n, sizeof(float));
                fixture.wants_dx = with;
                tensors_zero_grad(&fixture.list);
                model_run(&model, out, weight, false);
                device_copy_out(check_device(), grad[with], fixture.list.grad, n * sizeof(float));
            }
            const size_t first = fixture.stack.block[0].norm1.weight->offset; // x lies before
            EXPECT(memcmp(grad[0] + first, grad[1] + first, (n - first) * sizeof(float)) == 0,
                   "gradients of mixture %d differ", which);
            EXPECT(grad[0][0] == 0 && grad[1][0] != 0, "x has %g without, %g with", grad[0][0],
                   grad[1][0]);
            free(grad[0]);
            free(grad[1]);
            fixture_free(&fixture);
        }
    }
}

// Two micro-batches one after the other add up in the gradients.
TEST(block_accumulates) {
    const BlockConfig config = mixture(4);
    Fixture fixture = fixture_new(&config, DT_F32);
    const ModelUnderTest model = model_of(&fixture);
    const size_t n = fixture.list.trainable_count;
    float *once = xmalloc(n, sizeof *once), *twice = xmalloc(n, sizeof *twice);
    float out[N * C], weight[N * C];
    for (int i = 0; i < N * C; i++) {
        weight[i] = (float)(i % 5) - 2;
    }
    fixture.wants_dx = false;
    tensors_zero_grad(&fixture.list);
    model_run(&model, out, weight, false);
    device_copy_out(check_device(), once, fixture.list.grad, n * sizeof(float));
    model_run(&model, out, weight, false);
    device_copy_out(check_device(), twice, fixture.list.grad, n * sizeof(float));
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        worst = check_worst(worst, fabs(twice[i] - 2.0 * once[i]));
        largest = fmax(largest, fabs(once[i]));
    }
    // A chain that starts from the stored value rounds each of at most N sums at up to twice its
    // size.
    EXPECT(worst <= 2 * N * 0x1p-23 * largest && largest > 0, "off by %g of %g", worst, largest);
    free(once);
    free(twice);
    fixture_free(&fixture);
}
