// test_image_tower: gradients, batch invariance and sizes of the image tower in its three forms.
#include "models/image_tower.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "tests/model_check.h"

typedef struct {
    ImageTower tower;
    TensorList list;
    float *pixels; // (B,3,S,S) on the device
    int B;
} Fixture;

// The named preset's form at a size at which differences are cheap.
static ImageTowerConfig small_config(const char *preset) {
    ImageTowerConfig config;
    CHECK(image_tower_preset(&config, preset), "no preset '%s'", preset);
    config.image_size = 8;
    config.P = 4;
    config.L = 2;
    config.block.C = 16;
    config.block.H = config.block.Hkv = 2;
    config.block.D = 8;
    config.block.F = 20;
    config.E = config.has_projection ? 6 : 16;
    return config;
}

static Fixture fixture_new(const ImageTowerConfig *config, DType t, int B) {
    Fixture fixture = {.B = B, .list = tensors_new()};
    fixture.tower = image_tower_new(&fixture.list, config);
    tensors_mark(&fixture.list, "", true);
    tensors_allocate(&fixture.list, check_device(), t);
    tensors_init(&fixture.list, check_seed());
    tensors_disturb(&fixture.list, 0.1);
    Rng rng = check_rng(1);
    const size_t n = (size_t)B * 3 * (size_t)config->image_size * (size_t)config->image_size;
    float *host = xmalloc(n, sizeof *host);
    for (size_t i = 0; i < n; i++) {
        host[i] = (float)rng_normal(&rng);
    }
    fixture.pixels = device_alloc(check_device(), n * sizeof *host, "pixels");
    device_copy_in(check_device(), fixture.pixels, host, n * sizeof *host);
    free(host);
    return fixture;
}

static void fixture_free(Fixture *fixture) {
    device_release(check_device(), fixture->pixels);
    image_tower_free(&fixture->tower);
    tensors_free(&fixture->list);
}

static void pass(void *ctx, Run *run, void *out, const void *dout) {
    Fixture *fixture = ctx;
    ImageTowerState state;
    image_tower_fwd(run, &fixture->tower, &state, out, fixture->pixels, fixture->B);
    if (dout) {
        image_tower_bwd(run, &fixture->tower, &state, dout);
    }
}

static const char *const forms[] = {"tiny", "clip-vit-b-32", "biomedclip"};

TEST(image_tower) {
    check_time_limit(120);
    for (int i = 0; i < 3; i++) {
        const ImageTowerConfig config = small_config(forms[i]);
        if (CASE("gradients form=%s", forms[i])) {
            Fixture fixture = fixture_new(&config, DT_F32, 2);
            const ModelUnderTest model = {.list = &fixture.list, .pass = pass, .ctx = &fixture,
                                          .count = (size_t)2 * config.E};
            expect_model_gradients(&model);
            fixture_free(&fixture);
        }
        for (int t = DT_F32; t <= DT_BF16; t++) {
            if (CASE("recompute form=%s t=%s", forms[i], dtype_name((DType)t))) {
                Fixture fixture = fixture_new(&config, (DType)t, 3);
                const ModelUnderTest model = {.list = &fixture.list, .pass = pass,
                                              .ctx = &fixture, .count = (size_t)3 * config.E};
                expect_recompute_equal(&model);
                expect_frozen_without_memory(&fixture.list);
                fixture_free(&fixture);
            }
        }
    }
}

// The bits of an embedding do not depend on the rest of the batch.
TEST_DEVICE(image_tower_batch_invariance) {
    for (int i = 0; i < 3; i++) {
        if (CASE("form=%s", forms[i])) {
            ImageTowerConfig config = small_config(forms[i]);
            Fixture fixture = fixture_new(&config, DT_F32, 5);
            const size_t E = (size_t)config.E, image = 3u * 8u * 8u;
            ModelUnderTest model = {.list = &fixture.list, .pass = pass, .ctx = &fixture,
                                    .count = 5 * E};
            float *together = xmalloc(5 * E, sizeof *together), *alone = xmalloc(E, sizeof *alone);
            model_run(&model, together, NULL, false);
            Fixture one = fixture;
            one.B = 1;
            model.ctx = &one;
            model.count = E;
            for (int b = 0; b < 5; b++) {
                one.pixels = fixture.pixels + (size_t)b * image;
                model_run(&model, alone, NULL, false);
                EXPECT(memcmp(alone, together + (size_t)b * E, E * sizeof *alone) == 0,
                       "image %d differs", b);
            }
            fixture.tower = one.tower;
            fixture_free(&fixture);
            free(together);
            free(alone);
        }
    }
}

// Parameters of the published checkpoints, without the temperature.
TEST(image_tower_sizes) {
    const struct {
        const char *name;
        size_t count;
    } known[] = {{"jina-clip-v1", 85869312}, {"clip-vit-b-32", 87849216},
                 {"clip-vit-b-16", 86192640}, {"clip-vit-l-14", 303966208},
                 {"biomedclip", 86191872}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (CASE("%s", known[i].name)) {
            ImageTowerConfig config;
            EXPECT(image_tower_preset(&config, known[i].name), "no preset '%s'", known[i].name);
            TensorList list = tensors_new();
            ImageTower tower = image_tower_new(&list, &config);
            EXPECT(tensors_count(&list, false) == known[i].count, "%zu parameters",
                   tensors_count(&list, false));
            image_tower_free(&tower);
            tensors_free(&list);
        }
    }
}
