// test_text_tower: gradients, batch invariance and sizes of the text tower in its forms.
#include "models/text_tower.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "tests/model_check.h"

enum { B = 3, N = 11, VOCABULARY = 13 };
static const int32_t ids[N] = {3, 1, 12, 5, 3, 7, 0, 9, 9, 2, 11};
static const int32_t cu_seqlens[B + 1] = {0, 4, 5, 11};

typedef struct {
    TextTower tower;
    TensorList list;
    TextBatch batch;
} Fixture;

// The named preset's form at a size at which differences are cheap.
static TextTowerConfig small_config(const char *preset) {
    TextTowerConfig config;
    CHECK(text_tower_preset(&config, preset), "no preset '%s'", preset);
    config.V = VOCABULARY;
    config.L = 2;
    config.max_T = config.has_positions ? 8 : 0;
    config.block.C = 12;
    config.block.H = config.block.Hkv = 3;
    config.block.D = 4;
    config.block.F = 20;
    config.head_hidden = config.head_hidden ? 10 : 0;
    config.E = config.has_projection || config.head_hidden ? 6 : 12;
    return config;
}

static Fixture fixture_new(const TextTowerConfig *config, DType t) {
    Fixture fixture = {.list = tensors_new(),
                       .batch = {.B = B, .N = N, .max_T = 6, .ids = ids, .cu_seqlens = cu_seqlens}};
    fixture.tower = text_tower_new(&fixture.list, config);
    tensors_mark(&fixture.list, "", true);
    tensors_allocate(&fixture.list, check_device(), t);
    tensors_init(&fixture.list, check_seed());
    tensors_disturb(&fixture.list, 0.1);
    return fixture;
}

static void fixture_free(Fixture *fixture) {
    text_tower_free(&fixture->tower);
    tensors_free(&fixture->list);
}

static void pass(void *ctx, Run *run, void *out, const void *dout) {
    Fixture *fixture = ctx;
    TextTowerState state;
    text_tower_fwd(run, &fixture->tower, &state, out, &fixture->batch);
    if (dout) {
        text_tower_bwd(run, &fixture->tower, &state, dout);
    }
}

static const char *const forms[] = {"tiny", "clip-vit-b-32", "biomedclip", "minilm-l6"};

TEST(text_tower) {
    check_time_limit(120);
    for (int i = 0; i < 4; i++) {
        const TextTowerConfig config = small_config(forms[i]);
        if (CASE("gradients form=%s", forms[i])) {
            Fixture fixture = fixture_new(&config, DT_F32);
            const ModelUnderTest model = {.list = &fixture.list, .pass = pass, .ctx = &fixture,
                                          .count = (size_t)B * config.E};
            expect_model_gradients(&model);
            fixture_free(&fixture);
        }
        for (int t = DT_F32; t <= DT_BF16; t++) {
            if (CASE("recompute form=%s t=%s", forms[i], dtype_name((DType)t))) {
                Fixture fixture = fixture_new(&config, (DType)t);
                const ModelUnderTest model = {.list = &fixture.list, .pass = pass,
                                              .ctx = &fixture, .count = (size_t)B * config.E};
                expect_recompute_equal(&model);
                expect_frozen_without_memory(&fixture.list);
                fixture_free(&fixture);
            }
        }
    }
}

// The bits of an embedding do not depend on the rest of the batch.
TEST_DEVICE(text_tower_batch_invariance) {
    for (int i = 0; i < 4; i++) {
        if (CASE("form=%s", forms[i])) {
            const TextTowerConfig config = small_config(forms[i]);
            Fixture fixture = fixture_new(&config, DT_F32);
            const size_t E = (size_t)config.E;
            ModelUnderTest model = {.list = &fixture.list, .pass = pass, .ctx = &fixture,
                                    .count = B * E};
            float *together = xmalloc(B * E, sizeof *together), *alone = xmalloc(E, sizeof *alone);
            model_run(&model, together, NULL, false);
            model.count = E;
            for (int b = 0; b < B; b++) {
                const int32_t length = cu_seqlens[b + 1] - cu_seqlens[b], cu[2] = {0, length};
                fixture.batch = (TextBatch){.B = 1, .N = length, .max_T = length,
                                            .ids = ids + cu_seqlens[b], .cu_seqlens = cu};
                model_run(&model, alone, NULL, false);
                EXPECT(memcmp(alone, together + (size_t)b * E, E * sizeof *alone) == 0,
                       "text %d differs", b);
            }
            fixture_free(&fixture);
            free(together);
            free(alone);
        }
    }
}

// Parameters of the published checkpoints, without the temperature; MiniLM without its pooler.
TEST(text_tower_sizes) {
    const struct {
        const char *name;
        size_t count;
    } known[] = {{"jina-clip-v1", 136777728}, {"clip-vit-b-32", 63428096},
                 {"clip-vit-b-16", 63428096}, {"clip-vit-l-14", 123650304},
                 {"biomedclip", 109710848}, {"minilm-l6", 22565376}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (CASE("%s", known[i].name)) {
            TextTowerConfig config;
            EXPECT(text_tower_preset(&config, known[i].name), "no preset '%s'", known[i].name);
            TensorList list = tensors_new();
            TextTower tower = text_tower_new(&list, &config);
            EXPECT(tensors_count(&list, false) == known[i].count, "%zu parameters",
                   tensors_count(&list, false));
            text_tower_free(&tower);
            tensors_free(&list);
        }
    }
}

// Press et al. 2022, section 3; eight printed digits, and half a unit of f32.
// EOS stands for its text: the first one, and nothing after it counts; without one the first token.
TEST(text_tower_eos) {
    TextTowerConfig config = small_config("clip-vit-b-32");
    config.pool = POOL_EOS;
    config.eos = 4;
    Fixture fixture = fixture_new(&config, DT_F32);
    static const int32_t texts[] = {3, 4, 12, 4, 3, 4, 3, 12, 3}, ends[] = {0, 4, 6, 8, 9};
    fixture.batch = (TextBatch){.B = 4, .N = 9, .max_T = 4, .ids = texts, .cu_seqlens = ends};
    float out[4 * 6];
    const ModelUnderTest model = {.list = &fixture.list, .pass = pass, .ctx = &fixture,
                                  .count = 4 * 6};
    model_run(&model, out, NULL, false);
    EXPECT(memcmp(out, out + 6, 6 * sizeof *out) == 0, "%g and %g", out[0], out[6]);
    EXPECT(memcmp(out + 12, out + 18, 6 * sizeof *out) == 0, "%g and %g", out[12], out[18]);
    EXPECT(memcmp(out, out + 12, 6 * sizeof *out) != 0, "%g twice", out[0]);
    fixture_free(&fixture);
}

TEST(alibi_slopes) {
    const double want[12] = {0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625,
                             0.70710678, 0.35355339, 0.17677670, 0.08838835};
    float slopes[12];
    alibi_slopes(slopes, 12);
    for (int h = 0; h < 12; h++) {
        EXPECT(fabs(slopes[h] - want[h]) <= 5e-9 + ldexp(want[h], -24), "slope %d is %.9g", h,
               slopes[h]);
    }
}
