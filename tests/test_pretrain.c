// test_pretrain: the contrastive step against the loss in double precision over the towers'
// embeddings.
#include "host/pretrain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/world.h"

enum { B = 5 };

typedef struct {
    World *world;
    Pretrainer trainer;
    float *pixels;
    const char *texts[B];
} Fixture;

static Fixture *fixture_new(bool learns_temperature) {
    Fixture *f = xcalloc(1, sizeof *f);
    World *w = f->world = world_new(
        &(WorldConfig){.queries = 1, .corpus = B, .is_trainable = true});
    const OptimConfig optim = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    f->trainer = pretrainer_new(w->dev, w->retriever, w->tokenizer, &optim, 0.2, learns_temperature,
                                64);
    const int S = w->retriever->config.image.image_size;
    f->pixels = xmalloc((size_t)B * 3 * S * S, sizeof(float));
    prepare_images(f->pixels, w->dev, &w->tower_processor, S, w->corpus, NULL, B);
    for (int i = 0; i < B; i++) {
        f->texts[i] = w->corpus->records[i].text;
    }
    return f;
}

static void fixture_free(Fixture *f) {
    pretrainer_free(&f->trainer);
    free(f->pixels);
    world_free(f->world);
    free(f);
}

// Half the cross-entropy of the rows, and half that of the columns, of exp(scale) a b^T.
static double loss_by_hand(void *ctx) {
    const Fixture *f = ctx;
    World *w = f->world;
    const int E = w->retriever->config.image.E;
    float *a = xmalloc(2 * (size_t)B * E, sizeof *a), *b = a + (size_t)B * E, log_scale;
    encode_images(a, w->dev, DT_F32, &w->retriever->image, &w->tower_processor, w->corpus, NULL, B);
    encode_texts(b, w->dev, DT_F32, &w->retriever->text, w->tokenizer, f->texts, B, 64);
    tensor_read(&w->retriever->tensors, w->retriever->logit_scale, &log_scale);
    double s[B][B], loss = 0;
    for (int i = 0; i < B; i++) {
        for (int j = 0; j < B; j++) {
            s[i][j] = 0;
            for (int e = 0; e < E; e++) {
                s[i][j] += exp(log_scale) * a[i * E + e] * b[j * E + e];
            }
        }
    }
    for (int i = 0; i < B; i++) {
        double row = 0, column = 0;
        for (int j = 0; j < B; j++) {
            row += exp(s[i][j]);
            column += exp(s[j][i]);
        }
        loss += (log(row) + log(column) - 2 * s[i][i]) / (2 * B);
    }
    free(a);
    return loss;
}

TEST(pretrain_step) {
    for (int learns = 0; learns < 2; learns++) {
        if (!CASE("learns_temperature=%d", learns)) {
            continue;
        }
        Fixture *f = fixture_new(learns);
        const double want = loss_by_hand(f),
                     loss = pretrainer_step(&f->trainer, f->pixels, f->texts, B, 0);
        EXPECT(fabs(loss - want) <= 1e-5 * want, "loss %.9g, not %.9g", loss, want);
        float *gradient = world_gradient_new(&f->trainer.optim);
        expect_list_gradient(&f->world->retriever->tensors, gradient, loss_by_hand, f);
        free(gradient);
        fixture_free(f);
    }
}

TEST(pretrain_temperature) {
    for (int learns = 0; learns < 2; learns++) {
        if (!CASE("learns_temperature=%d", learns)) {
            continue;
        }
        Fixture *f = fixture_new(learns);
        const TensorList *list = &f->world->retriever->tensors;
        float before, after;
        tensor_read(list, f->world->retriever->logit_scale, &before);
        EXPECT(fabsf(before - logf(5)) < 1e-6f, "temperature 0.2 is scale %g",
               (double)expf(before));
        double first = 0, last = 0;
        for (int step = 0; step < 10; step++) {
            last = pretrainer_step(&f->trainer, f->pixels, f->texts, B, 1e-3);
            const Arena plan = pretrainer_plan(&f->trainer, f->texts, B);
            EXPECT(f->trainer.arena.size == plan.peak, "%zu bytes",
                   f->trainer.arena.size);
            first = step ? first : last;
        }
        tensor_read(list, f->world->retriever->logit_scale, &after);
        EXPECT((before != after) == learns, "scale went from %g to %g", (double)before,
               (double)after);
        EXPECT(last < first, "loss %g after %g", last, first);
        fixture_free(f);
    }
}
