// test_train_retriever: the whole step against the marginal loss in double precision, and its
// switches.
#include "host/train_retriever.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/evidence.h"
#include "tests/model_check.h"
#include "tests/world.h"

enum { QUERIES = 6, CORPUS = 14, K = 4, BATCH = 2, STEPS = 8, REFRESH = 3 };

typedef struct {
    World *world;
    Head *live, *search;
    Scorer scorer;
    Sampler *sampler;
    RetrieverTrainer trainer;
    // Of the step under test, for marginal_loss.
    int queries[BATCH];
    int32_t candidates[BATCH * K];
    float g[BATCH * K];
    const float *rows;
} Fixture;

static RetrieverTrainConfig config_of(IndexSide side) {
    return (RetrieverTrainConfig){.side = side,
                                  .K = K,
                                  .batch = BATCH,
                                  .refresh = REFRESH,
                                  .steps = STEPS,
                                  .share = 0.4f,
                                  .marginal = {.mode = MARGINAL_MARGINAL, .Ts = 0.1f, .Tg = 1},
                                  .seed = check_seed()};
}

static Fixture *fixture_new(const RetrieverTrainConfig *config, const float *rows_f32) {
    Fixture *f = xcalloc(1, sizeof *f);
    World *w = f->world = world_new(&(WorldConfig){.queries = QUERIES, .corpus = CORPUS});
    f->live = head_new(w->dev, DT_F32, &w->retriever->config.image, true);
    f->search = head_new(w->dev, DT_F32, &w->retriever->config.image, false);
    tensors_copy(&f->live->tensors, &w->retriever->tensors);
    tensors_copy(&f->search->tensors, &w->retriever->tensors);
    f->scorer = world_scorer(w);
    f->sampler = sampler_new(QUERIES, check_seed());
    const OptimConfig optim = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    f->trainer = retriever_trainer_new(w->dev, config, &optim, f->live, f->search, w->index,
                                       rows_f32, &w->tower_processor, w->queries, w->corpus,
                                       &f->scorer, f->sampler, w->fixed);
    f->rows = rows_f32 ? rows_f32 : w->rows[config->side];
    return f;
}

static void fixture_free(Fixture *f) {
    retriever_trainer_free(&f->trainer);
    sampler_free(f->sampler);
    scorer_free(&f->scorer);
    head_free(f->live);
    head_free(f->search);
    world_free(f->world);
    free(f);
}

// Embeddings of the step's queries by a head: (BATCH,E).
static float *embed_new(const Fixture *f, Head *head) {
    float *out = xmalloc((size_t)BATCH * f->world->index->dim, sizeof *out);
    encode_images(out, f->world->dev, DT_F32, &head->tower, &f->world->tower_processor,
                  f->world->queries, f->queries, BATCH);
    return out;
}

// s_d of query b with head embedding h, in double.
static double score(const Fixture *f, const float *h, int b, int k) {
    const int E = f->world->index->dim;
    const double a = f->trainer.config.share;
    double s = 0;
    for (int e = 0; e < E; e++) {
        const double q = a * h[b * E + e] + (1 - a) * f->world->fixed[f->queries[b] * E + e];
        s += q * f->rows[(size_t)f->candidates[b * K + k] * E + e];
    }
    return s;
}

// Mean over the batch of -log sum_d p_d exp(g_d), p = softmax(s / T_s).
static double marginal_of(const Fixture *f, const float *h, const float *g) {
    double loss = 0;
    for (int b = 0; b < BATCH; b++) {
        double above = 0, below = 0;
        for (int k = 0; k < K; k++) {
            const double weight = exp(score(f, h, b, k) / (double)f->trainer.config.marginal.Ts);
            above += weight * exp(g[b * K + k]);
            below += weight;
        }
        loss -= log(above / below) / BATCH;
    }
    return loss;
}

static double marginal_loss(void *ctx) {
    const Fixture *f = ctx;
    float *h = embed_new(f, f->live);
    const double loss = marginal_of(f, h, f->g);
    free(h);
    return loss;
}

// Runs one step at rate 0 and takes over its queries, candidates and gold scores.
static RetrieverStep observe_step(Fixture *f) {
    const int step = f->trainer.step;
    const RetrieverStep report = retriever_trainer_step(&f->trainer, 0);
    EXPECT(f->trainer.arena.size == retriever_trainer_plan(&f->trainer).peak, "%zu bytes",
           f->trainer.arena.size);
    const int offset = (step - f->trainer.block_start) * BATCH;
    Pair pairs[BATCH * K];
    float logprob[BATCH * K * 2];
    for (int b = 0; b < BATCH; b++) {
        f->queries[b] = f->trainer.block_queries[offset + b];
        EXPECT(f->queries[b] == sampler_item(f->sampler, (int64_t)step * BATCH + b), "query %d", b);
        for (int k = 0; k < K; k++) {
            f->candidates[b * K + k] = f->trainer.candidates[(offset + b) * K + k];
            pairs[b * K + k] = (Pair){f->queries[b], f->candidates[b * K + k]};
        }
    }
    scorer_scores(&f->scorer, NULL, logprob, f->world->queries, f->world->corpus, pairs, BATCH * K);
    for (int i = 0; i < BATCH * K; i++) {
        const int label = f->world->queries->records[pairs[i].query].label;
        f->g[i] = (float)evidence_label(logprob + 2 * i, 2, label);
    }
    return report;
}

// Loss and gradient of a head of either side; with f32 rows of its own in the last case.
TEST(train_retriever_gradient) {
    for (int k = 0; k < 3; k++) {
        const IndexSide side = k == 1 ? INDEX_TEXT : INDEX_IMAGE;
        if (!CASE("%s head%s", index_side_name(side), k == 2 ? ", recompute_fp32" : "")) {
            continue;
        }
        RetrieverTrainConfig config = config_of(side);
        Fixture *plain = fixture_new(&config, NULL);
        Fixture *f = plain;
        if (k == 2) { // rows that no index holds: only the loss may use them
            config.is_recompute_fp32 = true;
            float *rows = plain->world->rows[INDEX_TEXT];
            f = fixture_new(&config, rows);
        }
        const RetrieverStep report = observe_step(f);
        const double want = marginal_loss(f);
        EXPECT(fabs(report.loss - want) <= 1e-5 * fabs(want) &&
                   fabs(report.nll - want) <= 1e-5 * fabs(want),
               "loss %.9g, nll %.9g, not %.9g", report.loss, report.nll, want);
        float *gradient = world_gradient_new(&f->trainer.optim);
        expect_list_gradient(&f->live->tensors, gradient, marginal_loss, f);
        double square = 0;
        for (size_t i = 0; i < tensors_count(&f->live->tensors, true); i++) {
            square += (double)gradient[i] * gradient[i];
        }
        const double norm = (double)optim_read(&f->trainer.optim).norm;
        EXPECT(fabs(norm - sqrt(square)) <= 1e-4 * sqrt(square), "norm %g, not %g", norm,
               sqrt(square));
        free(gradient);
        if (f != plain) {
            fixture_free(f);
        }
        fixture_free(plain);
    }
}

// The K best rows of one side for the mixed query, by a plain loop; ties do not occur.
static void expect_candidates(const Fixture *f, const float *h, const char *what) {
    const World *w = f->world;
    const int E = w->index->dim;
    const double a = f->trainer.config.share;
    const float *rows = w->rows[f->trainer.config.side];
    for (int b = 0; b < BATCH; b++) {
        double s[CORPUS];
        const int32_t *found = f->candidates + b * K;
        for (int i = 0; i < CORPUS; i++) {
            s[i] = 0;
            for (int e = 0; e < E; e++) {
                s[i] += (a * h[b * E + e] + (1 - a) * w->fixed[f->queries[b] * E + e]) *
                        rows[i * E + e];
            }
        }
        for (int k = 0; k < K; k++) {
            int better = 0;
            for (int i = 0; i < CORPUS; i++) {
                better += s[i] > s[found[k]];
            }
            EXPECT(better == k, "%s: query %d, place %d holds the passage of rank %d", what, b, k,
                   better);
        }
    }
}

static bool equal_values(const TensorList *a, const TensorList *b) {
    bool is_equal = true;
    for (int i = 0; i < a->count; i++) {
        const Tensor *x = a->tensor[i], *y = b->tensor[i];
        float *values = xmalloc(2 * x->count, sizeof *values);
        tensor_read(a, x, values);
        tensor_read(b, y, values + x->count);
        is_equal = is_equal && memcmp(values, values + x->count, x->count * sizeof *values) == 0;
        free(values);
    }
    return is_equal;
}

// The search head is the live head of the block's first step, and stays so until the next block.
TEST(train_retriever_refresh) {
    const RetrieverTrainConfig config = config_of(INDEX_TEXT);
    Fixture *f = fixture_new(&config, NULL);
    Head *first = head_new(f->world->dev, DT_F32, &f->world->retriever->config.image, false);
    for (int step = 0; step < STEPS; step++) {
        if (step % REFRESH == 0) {
            tensors_copy(&first->tensors, &f->live->tensors);
        }
        retriever_trainer_step(&f->trainer, 0.05);
        EXPECT(equal_values(&f->search->tensors, &first->tensors),
               "step %d: not the head of step %d", step, step / REFRESH * REFRESH);
        EXPECT(!equal_values(&f->search->tensors, &f->live->tensors),
               "step %d: nothing was learned", step);
        const int offset = (step - f->trainer.block_start) * BATCH;
        memcpy(f->queries, f->trainer.block_queries + offset, sizeof f->queries);
        memcpy(f->candidates, f->trainer.candidates + (size_t)offset * K, sizeof f->candidates);
        float *h = embed_new(f, first);
        expect_candidates(f, h, "step");
        free(h);
    }
    EXPECT(f->trainer.step == STEPS, "%d steps", f->trainer.step);
    head_free(first);
    fixture_free(f);
}

// exact.stale_search_head: the given search head finds the candidates of the first block, and only
// these.
TEST(train_retriever_stale_search_head) {
    for (int is_stale = 0; is_stale < 2; is_stale++) {
        if (!CASE("stale=%d", is_stale)) {
            continue;
        }
        RetrieverTrainConfig config = config_of(INDEX_IMAGE);
        config.is_stale_search_head = is_stale;
        config.share = 0.9f;
        Fixture *f = fixture_new(&config, NULL);
        tensors_init(&f->search->tensors, check_seed() + 1);
        Head *other = head_new(f->world->dev, DT_F32, &f->world->retriever->config.image, false);
        tensors_copy(&other->tensors, &f->search->tensors);
        for (int step = 0; step <= REFRESH; step++) {
            observe_step(f);
            const bool uses_other = is_stale && step < REFRESH;
            EXPECT(equal_values(&f->search->tensors, &(uses_other ? other : f->live)->tensors),
                   "step %d", step);
            float *h = embed_new(f, uses_other ? other : f->live);
            expect_candidates(f, h, uses_other ? "stale" : "fresh");
            free(h);
        }
        head_free(other);
        fixture_free(f);
    }
}

// Does some order of the gold scores of every query give this loss?
static bool fits_permutation(const Fixture *f, const float *h, double loss, float *g, int b,
                             int k) {
    if (b == BATCH) {
        return fabs(marginal_of(f, h, g) - loss) <= 1e-5 * fabs(loss);
    }
    if (k == K) {
        return fits_permutation(f, h, loss, g, b + 1, 0);
    }
    for (int j = k; j < K; j++) {
        float *x = &g[b * K + k], *y = &g[b * K + j], swap = *x;
        *x = *y;
        *y = swap;
        const bool fits = fits_permutation(f, h, loss, g, b, k + 1);
        swap = *x;
        *x = *y;
        *y = swap;
        if (fits) {
            return true;
        }
    }
    return false;
}

// The control shuffles the evidence within a query: the same values, on other passages.
TEST(train_retriever_permuted) {
    RetrieverTrainConfig config = config_of(INDEX_IMAGE);
    config.is_permuted = true;
    Fixture *f = fixture_new(&config, NULL);
    int moved = 0;
    for (int step = 0; step < STEPS; step++) {
        const RetrieverStep report = observe_step(f);
        float *h = embed_new(f, f->live), g[BATCH * K];
        memcpy(g, f->g, sizeof g);
        EXPECT(fits_permutation(f, h, report.nll, g, 0, 0), "step %d: %.9g is no permutation", step,
               report.nll);
        moved += fabs(marginal_of(f, h, f->g) - report.nll) > 1e-5 * report.nll;
        free(h);
    }
    EXPECT(moved >= STEPS / 2, "only %d of %d steps are shuffled", moved, STEPS);
    fixture_free(f);
}

// A query never meets a passage of its own group; a group that leaves too few is the user's
// mistake.
static void step_without_passages(void *ctx) {
    Fixture *f = ctx;
    int32_t group[CORPUS];
    for (int i = 0; i < CORPUS; i++) {
        group[i] = i < K - 1 ? -1 : 0;
    }
    index_set_groups(f->world->index, group);
    retriever_trainer_step(&f->trainer, 0);
}

TEST(train_retriever_own_group) {
    const RetrieverTrainConfig config = config_of(INDEX_IMAGE);
    Fixture *f = fixture_new(&config, NULL);
    int32_t group[CORPUS];
    for (int i = 0; i < CORPUS; i++) {
        group[i] = i % 2;
    }
    index_set_groups(f->world->index, group);
    for (int q = 0; q < QUERIES; q++) {
        f->trainer.query_group[q] = q % 2;
    }
    for (int step = 0; step < STEPS; step++) {
        observe_step(f);
        for (int i = 0; i < BATCH * K; i++) {
            EXPECT(f->candidates[i] % 2 != f->queries[i / K] % 2, "query %d meets passage %d",
                   f->queries[i / K], f->candidates[i]);
        }
    }
    fixture_free(f);
    f = fixture_new(&config, NULL);
    memset(f->trainer.query_group, 0, QUERIES * sizeof *f->trainer.query_group);
    EXPECT(world_exit_code(step_without_passages, f) == EXIT_BAD_DATA, "too few passages");
    fixture_free(f);
}

// Distinct passages per query, and the share of scores that were known.
TEST(train_retriever_counts) {
    const RetrieverTrainConfig config = config_of(INDEX_IMAGE);
    Fixture *f = fixture_new(&config, NULL);
    EXPECT(isnan(retriever_trainer_distinct(&f->trainer)), "no query was used");
    double hits = 0;
    for (int step = 0; step < STEPS; step++) {
        hits += retriever_trainer_step(&f->trainer, 0).hit_rate / STEPS;
    }
    // At rate 0 nothing moves: every query keeps its K passages, and asks anew only the first time.
    EXPECT(retriever_trainer_distinct(&f->trainer) == K, "%g",
           retriever_trainer_distinct(&f->trainer));
    EXPECT(f->scorer.forwards == QUERIES * K, "%d forwards", (int)f->scorer.forwards);
    EXPECT(fabs(hits - (1 - (double)QUERIES / (STEPS * BATCH))) < 1e-12, "hit rate %g", hits);
    fixture_free(f);
}

// After the first step of a block: the passages' rows come to the host, then the embeddings, then
// the loss with its gradient.
TEST_DEVICE(train_retriever_steady) {
    if (device_kind(check_device()) != DEVICE_EMU) {
        check_skip("counts the calls of the emulator");
        return;
    }
    RetrieverTrainConfig config = config_of(INDEX_IMAGE);
    Fixture *f = fixture_new(&config, NULL);
    retriever_trainer_step(&f->trainer, 1e-3);
    Pair pairs[BATCH * K]; // of the next step: the reader is asked before
    for (int i = 0; i < BATCH * K; i++) {
        pairs[i] = (Pair){f->trainer.block_queries[BATCH + i / K],
                          f->trainer.candidates[BATCH * K + i]};
    }
    float logprob[BATCH * K * 2];
    scorer_scores(&f->scorer, NULL, logprob, f->world->queries, f->world->corpus, pairs, BATCH * K);
    const EmuCalls before = *emu_calls();
    retriever_trainer_step(&f->trainer, 1e-3);
    expect_steady(&before, 3);
    fixture_free(f);
}
