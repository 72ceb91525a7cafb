// test_lora: adapters beside plain arithmetic: the equation, the merge, shared and split tensors.
#include "models/lora.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/block.h"
#include "tests/check.h"
#include "tests/model_check.h"

enum { IN = 5, OUT = 7, ROWS = 4, RANK = 3 };

typedef struct {
    TensorList list;
    Linear linear;
    float inp[ROWS * IN];
} Fixture;

static void fixture_init(Fixture *fixture, DType t, bool is_base_trainable) {
    fixture->list = tensors_new();
    fixture->linear = linear_new(&fixture->list, "module", OUT, IN, true);
    lora_add(&fixture->list, &fixture->linear, "module", (LoraConfig){.rank = RANK, .alpha = 6});
    tensors_mark(&fixture->list, "", true);
    tensors_mark_adapters(&fixture->list, false, is_base_trainable);
    tensors_allocate(&fixture->list, check_device(), t);
    tensors_init(&fixture->list, check_seed());
    tensors_disturb(&fixture->list, 0.3);
    tensors_pack(&fixture->list, SIZE_MAX);
    Rng rng = check_rng(3);
    for (int i = 0; i < ROWS * IN; i++) {
        fixture->inp[i] = (float)rng_normal(&rng);
    }
}

static void pass(void *ctx, Run *run, void *out, const void *dout) {
    Fixture *fixture = ctx;
    const size_t start = arena_mark(run->arena);
    void *inp = run_take(run, ROWS, IN), *lora;
    if (!run->is_planning) {
        float *wide = fixture->inp;
        char rounded[sizeof fixture->inp];
        dtype_narrow(run->t, rounded, wide, ROWS * IN);
        device_copy_in(run->dev, inp, rounded, ROWS * IN * dtype_size(run->t));
    }
    linear_fwd(run, &fixture->linear, out, &lora, inp, ROWS, NULL);
    if (dout) {
        linear_bwd(run, &fixture->linear, run_take(run, ROWS, IN), dout, lora, inp, ROWS, NULL);
    }
    arena_release(run->arena, start);
}

static double at(const float *values, int row, int columns, int column) {
    return values[row * columns + column];
}

// y = x W^T + b + s (x A^T) B^T in double, and the same by one matrix W + s B A.
TEST(lora_scale) {
    EXPECT(lora_scale((LoraConfig){.rank = 8, .alpha = 16}) == 2, "plain");
    EXPECT(lora_scale((LoraConfig){.rank = 8, .alpha = 16, .is_rslora = true}) ==
               5.656854249492381f, "rank-stabilised"); // 16 / sqrt 8, once rounded
}

TEST(lora) {
    if (CASE("equation and merge")) {
        Fixture fixture;
        fixture_init(&fixture, DT_F32, false);
        float w[OUT * IN], bias[OUT], a[RANK * IN], b[OUT * RANK], merged[OUT * IN];
        float out[ROWS * OUT];
        tensor_read(&fixture.list, fixture.linear.weight, w);
        tensor_read(&fixture.list, fixture.linear.bias, bias);
        tensor_read(&fixture.list, fixture.linear.lora_a, a);
        tensor_read(&fixture.list, fixture.linear.lora_b, b);
        memcpy(merged, w, sizeof w);
        lora_merge(&fixture.list, &fixture.linear, merged);
        const ModelUnderTest model = {.list = &fixture.list, .pass = pass, .ctx = &fixture,
                                      .count = ROWS * OUT};
        model_run(&model, out, NULL, false);
        for (int n = 0; n < ROWS; n++) {
            for (int o = 0; o < OUT; o++) {
                double plain = bias[o], size = fabs(plain), one = bias[o];
                for (int i = 0; i < IN; i++) {
                    const double x = at(fixture.inp, n, IN, i);
                    double weight = at(w, o, IN, i);
                    for (int k = 0; k < RANK; k++) {
                        weight += 6.0 / RANK * at(b, o, RANK, k) * at(a, k, IN, i);
                    }
                    plain += x * weight;
                    one += x * at(merged, o, IN, i);
                    size += fabs(x) * (fabs(weight) + fabs(at(w, o, IN, i)));
                }
                // A chain of IN + RANK + 2 products, each rounded to f32.
                const double bound = (IN + RANK + 2) * 0x1p-24 * size;
                const double got = at(out, n, OUT, o);
                EXPECT(fabs(got - plain) <= bound, "row %d column %d is %.9g, not %.9g", n, o, got,
                       plain);
                EXPECT(fabs(one - plain) <= bound, "merged, row %d column %d is %.9g, not %.9g", n,
                       o, one, plain);
            }
        }
        tensors_free(&fixture.list);
    }
    for (int is_base_trainable = 0; is_base_trainable < 2; is_base_trainable++) {
        if (CASE("gradients base=%d", is_base_trainable)) {
            Fixture fixture;
            fixture_init(&fixture, DT_F32, is_base_trainable);
            const ModelUnderTest model = {.list = &fixture.list, .pass = pass, .ctx = &fixture,
                                          .count = ROWS * OUT};
            expect_model_gradients(&model);
            expect_frozen_without_memory(&fixture.list);
            tensors_free(&fixture.list);
        }
    }
}

// A new adapter changes nothing, because B is zero; the base is drawn as if there were no adapter.
TEST(lora_init) {
    float with[ROWS * OUT], without[ROWS * OUT];
    for (int rank = 0; rank <= RANK; rank += RANK) {
        Fixture fixture = {.list = tensors_new()};
        fixture.linear = linear_new(&fixture.list, "module", OUT, IN, true);
        lora_add(&fixture.list, &fixture.linear, "module", (LoraConfig){.rank = rank, .alpha = 6});
        tensors_allocate(&fixture.list, check_device(), DT_F32);
        tensors_init(&fixture.list, check_seed());
        for (int i = 0; i < ROWS * IN; i++) {
            fixture.inp[i] = (float)(i % 7) - 3;
        }
        const ModelUnderTest model = {.list = &fixture.list, .pass = pass, .ctx = &fixture,
                                      .count = ROWS * OUT};
        model_run(&model, rank ? with : without, NULL, false);
        if (rank) {
            float a[RANK * IN], largest = 0;
            tensor_read(&fixture.list, fixture.linear.lora_a, a);
            for (int i = 0; i < RANK * IN; i++) {
                largest = fmaxf(largest, fabsf(a[i]));
            }
            EXPECT(largest > 0.2f && largest <= (float)(1 / sqrt((double)IN)), "A reaches %g",
                   largest);
        }
        tensors_free(&fixture.list);
    }
    EXPECT(memcmp(with, without, sizeof with) == 0, "out[0] is %g with, %g without", with[0],
           without[0]);
}

// A fused module has one A, and one B of which q, k and v hold rows.
TEST(lora_fused_names) {
    TensorList list = tensors_new();
    const BlockConfig config = {.C = 8, .H = 2, .Hkv = 2, .D = 4, .F = 6,
                                .has_q_bias = true, .has_k_bias = true, .has_v_bias = true,
                                .lora = {.rank = RANK, .alpha = RANK}, .names = &block_names_timm};
    BlockStack stack = stack_new(&list, &config, 1, "visual.blocks.");
    const Linear *q = &stack.block[0].q, *k = &stack.block[0].k, *v = &stack.block[0].v;
    EXPECT(q->lora_a == k->lora_a && k->lora_a == v->lora_a, "A of '%s' and '%s'",
           q->lora_a->name, v->lora_a->name);
    EXPECT(strcmp(q->lora_a->file, "visual.blocks.0.attn.qkv.lora_A.weight") == 0, "A is '%s'",
           q->lora_a->file);
    EXPECT(strcmp(v->lora_b->file, "visual.blocks.0.attn.qkv.lora_B.weight") == 0, "B is '%s'",
           v->lora_b->file);
    EXPECT(v->lora_b->file_row == 16 && v->lora_b->file_rows == 24 && v->lora_b->shape[0] == 8,
           "B of v is rows %d.. of %d", v->lora_b->file_row, v->lora_b->file_rows);
    EXPECT(strcmp(k->bias->file, "visual.blocks.0.attn.qkv.bias") == 0 && k->bias->file_row == 8,
           "bias of k is '%s' from %d", k->bias->file, k->bias->file_row);
    EXPECT(strcmp(k->weight->name, k->weight->file) != 0, "'%s' names a slice and the whole",
           k->weight->name);
    stack_free(&stack);
    tensors_free(&list);
}
