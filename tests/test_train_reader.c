// test_train_reader: loss and gradient of a step against the reader run by hand; closed book;
// recomputing.
#include "host/train_reader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/world.h"

enum { B = 4 };

typedef struct {
    World *world;
    ReaderTrainer trainer;
    ReaderExample examples[B]; // the second one is closed book
    Arena arena;               // of the pass by hand
} Fixture;

static Fixture *fixture_new(bool trains_all, bool recomputes) {
    Fixture *f = xcalloc(1, sizeof *f);
    World *w = f->world = world_new(&(WorldConfig){.queries = B,
                                                   .corpus = B,
                                                   .has_long_labels = true,
                                                   .lora_rank = trains_all ? 0 : 2,
                                                   .is_trainable = trains_all});
    const OptimConfig optim = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    f->trainer = reader_trainer_new(w->dev, w->reader, &w->prompts, &optim,
                                    &(ReaderTrainConfig){.recomputes = recomputes});
    const VisionConfig *vision = &w->reader->config.vision;
    for (int i = 0; i < B; i++) {
        const Record *query = &w->queries->records[i];
        f->examples[i] = (ReaderExample){
            .prompt = {.question = query->question,
                       .caption = w->corpus->records[i].text,
                       .query_image = reader_image_of_row(&w->reader_processor, vision,
                                                          w->queries, i)},
            .answer = w->labels.tokens + query->label * w->labels.max_tokens,
            .answer_count = w->labels.counts[query->label]};
        if (i != 1) {
            f->examples[i].prompt.passage_image =
                reader_image_of_row(&w->reader_processor, vision, w->corpus, i);
        }
    }
    return f;
}

static void fixture_free(Fixture *f) {
    for (int i = 0; i < B; i++) {
        free((void *)f->examples[i].prompt.query_image.pixels);
        free((void *)f->examples[i].prompt.passage_image.pixels);
    }
    arena_free(&f->arena);
    reader_trainer_free(&f->trainer);
    world_free(f->world);
    free(f);
}

// Mean over all answer tokens of -log p, in double over the reader's logits; with wants_gradient
// the reader's gradients come from the derivative of just this.
static double loss_by_hand(Fixture *f, bool wants_gradient) {
    World *w = f->world;
    const int V = w->reader->config.V;
    ReaderBatch batch = reader_batch_new();
    int32_t targets[64];
    int R = 0;
    for (int i = 0; i < B; i++) {
        const ReaderExample *example = &f->examples[i];
        prompt_add(&w->prompts, &batch, &example->prompt, example->answer, example->answer_count);
        memcpy(targets + R, example->answer, (size_t)example->answer_count * sizeof *targets);
        R += example->answer_count;
    }
    Run run = run_new(w->dev, DT_F32, &f->arena, wants_gradient);
    Arena plan = arena_plan();
    Run planning = run_planning(&run, &plan);
    const size_t C = (size_t)w->reader->config.block.C;
    ReaderState state;
    float *logits = xmalloc((size_t)R * V, sizeof *logits), *device = NULL;
    double loss = 0;
    for (int pass = 0; pass < 2; pass++) {
        Run *now = pass ? &run : &planning;
        device = run_take(now, (size_t)R, (size_t)V);
        void *hidden = run_take(now, (size_t)R, C), *dhidden = run_take(now, (size_t)R, C);
        reader_hidden_fwd(now, w->reader, &state, hidden, &batch);
        reader_head_fwd(now, w->reader, device, hidden, R);
        if (pass) {
            device_copy_out(w->dev, logits, device, (size_t)R * V * sizeof *logits);
        }
        for (int r = 0; pass && r < R; r++) {
            float *row = logits + (size_t)r * V;
            double sum = 0;
            for (int v = 0; v < V; v++) {
                sum += exp(row[v]);
            }
            loss -= (row[targets[r]] - log(sum)) / R;
            for (int v = 0; v < V; v++) {
                row[v] = (float)((exp(row[v]) / sum - (v == targets[r])) / R);
            }
        }
        if (wants_gradient) {
            if (pass) {
                device_copy_in(w->dev, device, logits, (size_t)R * V * sizeof *logits);
            }
            reader_head_bwd(now, w->reader, dhidden, device, hidden, R);
            reader_hidden_bwd(now, w->reader, &state, dhidden);
        }
        if (!pass) {
            arena_reserve(&f->arena, w->dev, "test", plan.peak);
        }
    }
    free(logits);
    reader_batch_free(&batch);
    return loss;
}

TEST(train_reader_step) {
    for (int k = 0; k < 4; k++) {
        const bool trains_all = k % 2, recomputes = k / 2;
        if (!CASE("%s%s", trains_all ? "all weights" : "adapter",
                  recomputes ? ", recomputed" : "")) {
            continue;
        }
        Fixture *f = fixture_new(trains_all, recomputes);
        TensorList *list = &f->world->reader->tensors;
        const size_t n = tensors_count(list, true);
        const double want = loss_by_hand(f, true);
        float *by_hand = xmalloc(n, sizeof *by_hand);
        size_t at = 0;
        for (int i = 0; i < list->count; i++) {
            const Tensor *tensor = list->tensor[i];
            if (tensor->is_trainable) {
                device_copy_out(list->dev, by_hand + at, tensor->grad,
                                tensor->count * sizeof *by_hand);
                at += tensor->count;
            }
        }
        tensors_zero_grad(list);
        const double loss = reader_trainer_step(&f->trainer, f->examples, B, 0);
        EXPECT(fabs(loss - want) <= 1e-6 * want, "loss %.9g, not %.9g", loss, want);
        float *gradient = world_gradient_new(&f->trainer.optim);
        double off = 0, whole = 0;
        for (size_t i = 0; i < n; i++) {
            off += ((double)gradient[i] - by_hand[i]) * ((double)gradient[i] - by_hand[i]);
            whole += (double)by_hand[i] * by_hand[i];
        }
        // The two ways differ in the rounding of dlogits, and of m / (1 - beta1).
        EXPECT(sqrt(off) <= 1e-5 * sqrt(whole) && whole > 0, "gradients differ by %g of %g",
               sqrt(off), sqrt(whole));
        free(by_hand);
        free(gradient);
        fixture_free(f);
    }
}

// Recomputing and the neighbours in the batch do not show; steps go downhill.
TEST(train_reader_learns) {
    Fixture *kept = fixture_new(false, false), *again = fixture_new(false, true);
    double first = 0, last = 0;
    for (int step = 0; step < 12; step++) {
        const double a = reader_trainer_step(&kept->trainer, kept->examples, B, 0.01);
        const double b = reader_trainer_step(&again->trainer, again->examples, B, 0.01);
        EXPECT(memcmp(&a, &b, sizeof a) == 0, "step %d: recomputing gives %.17g, not %.17g", step,
               b, a);
        first = step ? first : a;
        last = a;
    }
    EXPECT(last < 0.8 * first, "loss %g after %g", last, first);
    fixture_free(kept);
    fixture_free(again);
}

// However few rows have logits at once, loss and gradients keep every bit, and memory shrinks.
TEST(train_reader_pieces) {
    for (int trains_all = 0; trains_all < 2; trains_all++) {
        if (!CASE("%s", trains_all ? "all weights" : "adapter")) {
            continue;
        }
        double want = 0;
        float *by_one_piece = NULL;
        size_t bytes = 0;
        for (int piece = 0; piece < 3; piece++) { // all rows, two of them, one
            Fixture *f = fixture_new(trains_all, false);
            Reader *reader = f->world->reader;
            const size_t n = tensors_count(&reader->tensors, true);
            reader->logits_limit = piece ? (size_t)(3 - piece) * reader->config.V * sizeof(float)
                                         : READER_LOGITS;
            const double loss = reader_trainer_step(&f->trainer, f->examples, B, 0);
            float *gradient = world_gradient_new(&f->trainer.optim);
            const size_t taken = f->trainer.arena.peak;
            if (piece == 0) {
                want = loss;
                by_one_piece = gradient;
            } else {
                EXPECT(memcmp(&loss, &want, sizeof loss) == 0, "loss %.17g, not %.17g", loss, want);
                EXPECT(memcmp(gradient, by_one_piece, n * sizeof *gradient) == 0,
                       "other gradients with logits of %d rows", 3 - piece);
                EXPECT(taken <= bytes, "%zu bytes, not %zu", taken, bytes);
                free(gradient);
            }
            EXPECT(f->trainer.batch.R > 4, "%d rows are too few", f->trainer.batch.R);
            bytes = taken;
            fixture_free(f);
        }
        free(by_one_piece);
    }
}

// A closed-book prompt has no passage in it: passage and caption of the example do not matter.
TEST(train_reader_closed_book) {
    Fixture *f = fixture_new(false, false);
    ReaderExample example = f->examples[1];
    const double plain = reader_trainer_step(&f->trainer, &example, 1, 0);
    example.prompt.caption = "scan with alpha , upper-left texture banded";
    const double captioned = reader_trainer_step(&f->trainer, &example, 1, 0);
    example.prompt.passage_image = f->examples[0].prompt.passage_image;
    const double open = reader_trainer_step(&f->trainer, &example, 1, 0);
    EXPECT(plain == captioned, "the caption is read: %g and %g", plain, captioned);
    EXPECT(plain != open, "the passage is not read");
    fixture_free(f);
}
