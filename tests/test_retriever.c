// test_retriever: unit embeddings with gradients through the norm, and query heads as copies.
#include "models/retriever.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "tests/model_check.h"

enum { B = 2, N = 7, PIXELS = B * 3 * 8 * 8 };
static const int32_t ids[N] = {3, 1, 8, 5, 3, 7, 2};
static const int32_t cu_seqlens[B + 1] = {0, 4, 7};

typedef struct {
    Retriever *retriever;
    ImageTower *image; // the retriever's, or a head's
    float *pixels;
    bool is_text;
} Fixture;

static RetrieverConfig small_config(void) {
    RetrieverConfig config;
    CHECK(retriever_preset(&config, "tiny"), "no preset '%s'", "tiny");
    config.image.image_size = 8;
    config.image.P = 4;
    config.image.L = config.text.L = 1;
    config.image.E = config.text.E = 8;
    config.text.V = 9;
    BlockConfig *const blocks[] = {&config.image.block, &config.text.block};
    for (int i = 0; i < 2; i++) {
        blocks[i]->C = 8;
        blocks[i]->H = blocks[i]->Hkv = 2;
        blocks[i]->D = 4;
        blocks[i]->F = 6;
    }
    return config;
}

static Fixture fixture_new(void) {
    const RetrieverConfig config = small_config();
    Fixture fixture = {.retriever = retriever_new(check_device(), DT_F32, &config, true)};
    fixture.image = &fixture.retriever->image;
    tensors_init(&fixture.retriever->tensors, check_seed());
    tensors_disturb(&fixture.retriever->tensors, 0.1);
    float host[PIXELS];
    Rng rng = check_rng(1);
    for (int i = 0; i < PIXELS; i++) {
        host[i] = (float)rng_normal(&rng);
    }
    fixture.pixels = device_alloc(check_device(), sizeof host, "pixels");
    device_copy_in(check_device(), fixture.pixels, host, sizeof host);
    return fixture;
}

static void fixture_free(Fixture *fixture) {
    device_release(check_device(), fixture->pixels);
    retriever_free(fixture->retriever);
}

// Both towers, one below the other.
static void pass(void *ctx, Run *run, void *out, const void *dout) {
    Fixture *fixture = ctx;
    const TextBatch texts = {.B = B, .N = N, .max_T = 4, .ids = ids, .cu_seqlens = cu_seqlens};
    EmbedImagesState images_state;
    EmbedTextsState texts_state;
    embed_images_fwd(run, fixture->image, &images_state, out, fixture->pixels, B);
    if (fixture->is_text) {
        embed_texts_fwd(run, &fixture->retriever->text, &texts_state, run_at(run, out, B * 8),
                        &texts);
    }
    if (dout) {
        embed_images_bwd(run, fixture->image, &images_state, dout);
    }
    if (dout && fixture->is_text) {
        embed_texts_bwd(run, &fixture->retriever->text, &texts_state, run_at(run, dout, B * 8));
    }
}

TEST(retriever) {
    if (CASE("gradients")) {
        Fixture fixture = fixture_new();
        fixture.is_text = true;
        const ModelUnderTest model = {.list = &fixture.retriever->tensors, .pass = pass,
                                      .ctx = &fixture, .count = 2 * B * 8};
        expect_model_gradients(&model);
        fixture_free(&fixture);
    }
    if (CASE("unit rows, and a head is a copy")) {
        Fixture fixture = fixture_new();
        ModelUnderTest model = {.list = &fixture.retriever->tensors, .pass = pass, .ctx = &fixture,
                                .count = B * 8};
        float tower[B * 8], copy[B * 8];
        model_run(&model, tower, NULL, false);
        for (int b = 0; b < B; b++) {
            double squares = 0;
            for (int e = 0; e < 8; e++) {
                squares += (double)tower[b * 8 + e] * tower[b * 8 + e];
            }
            // Eight quotients and a norm, each rounded once or twice.
            EXPECT(fabs(sqrt(squares) - 1) <= 8 * 0x1p-24, "row %d has length %.9g", b,
                   sqrt(squares));
        }
        Head *head = head_new(check_device(), DT_F32, &fixture.retriever->config.image, true);
        EXPECT(tensors_copy(&head->tensors, &fixture.retriever->tensors) == head->tensors.count,
               "%d tensors in the head", head->tensors.count);
        fixture.image = &head->tower;
        model_run(&model, copy, NULL, false);
        EXPECT(memcmp(tower, copy, sizeof copy) == 0, "%.9g and %.9g", tower[0], copy[0]);
        head_free(head);
        fixture_free(&fixture);
    }
}

// ---- heads that train their last groups ----
// open_clip's lock leaves 28,746,240 parameters of vit_base_patch16_224 and its projection to train
// when four groups are unlocked: blocks 8 to 11, the final norm, the projection.
TEST(retriever_unfreeze_biomedclip) {
    ImageTowerConfig config;
    image_tower_preset(&config, "biomedclip");
    TensorList list = tensors_new();
    ImageTower tower = image_tower_new(&list, &config);
    image_tower_unfreeze(&list, &tower);
    EXPECT(tensors_count(&list, true) == 28746240, "%zu parameters", tensors_count(&list, true));
    EXPECT(!tensors_find(&list, "visual.trunk.blocks.7.norm2.bias")->is_trainable &&
               tensors_find(&list, "visual.trunk.blocks.8.norm1.weight")->is_trainable,
           "the border is not between blocks 7 and 8");
    image_tower_free(&tower);
    tensors_free(&list);
}

// What is trained gets the gradient that it has when all is trained, to the bit.
TEST(retriever_unfreeze) {
    Fixture fixture = fixture_new();
    ImageTowerConfig config = fixture.retriever->config.image;
    config.L = 3;
    float out[B * 8], weight[B * 8];
    for (int i = 0; i < B * 8; i++) {
        weight[i] = (float)(i % 5) - 1.5f;
    }
    config.unfrozen = 0;
    Head *whole = head_new(check_device(), DT_F32, &config, true);
    tensors_init(&whole->tensors, 5);
    for (int groups = 1; groups <= 4; groups++) {
        if (!CASE("%d groups", groups)) {
            continue;
        }
        config.unfrozen = groups;
        Head *head = head_new(check_device(), DT_F32, &config, true);
        tensors_copy(&head->tensors, &whole->tensors);
        Head *const heads[] = {whole, head};
        for (int i = 0; i < 2; i++) {
            fixture.image = &heads[i]->tower;
            const ModelUnderTest model = {.list = &heads[i]->tensors, .pass = pass, .ctx = &fixture,
                                          .count = B * 8};
            tensors_zero_grad(model.list);
            model_run(&model, out, weight, false);
        }
        int trained = 0;
        for (int i = 0; i < head->tensors.count; i++) {
            const Tensor *part = head->tensors.tensor[i], *all = whole->tensors.tensor[i];
            trained += part->is_trainable;
            EXPECT(!part->is_trainable ||
                       is_same_on_device(check_device(), part->grad, all->grad,
                                         part->count * sizeof(float)),
                   "gradient of '%s'", part->name);
        }
        // 21 tensors of a block, 2 of the norm, 4 before the blocks.
        EXPECT(trained == (groups == 4 ? head->tensors.count : 21 * groups + 2), "%d trained",
               trained);
        expect_frozen_without_memory(&head->tensors);
        head_free(head);
    }
    head_free(whole);
    fixture_free(&fixture);
}
