// train_retriever: see train_retriever.h.
#include "train_retriever.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/lanes.h"

void mix_queries(float *out, const float *h, const float *f, float share, int n, int E) {
    for (size_t i = 0; i < (size_t)n * E; i++) {
        out[i] = share * h[i] + (1.0f - share) * f[i];
    }
}

static RetrieverWork work_new(const RetrieverTrainConfig *config, const Head *live, int E) {
    const size_t B = (size_t)config->batch, pairs = B * config->K,
                 S = live->tower.config.image_size;
    RetrieverWork work = {.rows = xmalloc(pairs * E, sizeof(float)),
                          .g = xmalloc(2 * pairs, sizeof(float)),
                          .loss = xmalloc(2 * B + pairs, sizeof(float)),
                          .predicted = xmalloc(pairs, sizeof(int32_t)),
                          .h = xmalloc(2 * B * E, sizeof(float)),
                          .q = xmalloc((size_t)E, sizeof(float)),
                          .pixels = xmalloc(B * 3 * S * S, sizeof(float)),
                          .narrow = xmalloc(B * E, dtype_size(live->tensors.t))};
    work.s = work.g + pairs;
    work.ds = work.loss + 2 * B;
    work.dh = work.h + B * E;
    return work;
}

static void work_free(RetrieverWork *work) {
    void *const blocks[] = {work->rows, work->g, work->loss,   work->predicted,
                            work->h,    work->q, work->pixels, work->narrow};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        free(blocks[i]);
    }
}

RetrieverTrainer retriever_trainer_new(Device *dev, const RetrieverTrainConfig *config,
                                       const OptimConfig *optim, Head *live, Head *search,
                                       const Index *index, const float *rows_f32,
                                       const ProcessorConfig *processor, Dataset *queries,
                                       Dataset *corpus, Scorer *scorer, Sampler *sampler,
                                       const float *fixed) {
    const int E = index->dim,
              most = config->refresh < config->steps ? config->refresh : config->steps;
    const size_t places = (size_t)most *
                          config->batch; // queries of a block, (steps until a refresh)
    if (places * config->K > INT32_MAX) {
        die(EXIT_CONFIG,
            "retriever.refresh: %zu queries of %d passages between two refreshes; lower it", places,
            config->K);
    }
    RetrieverTrainer trainer = {.config = *config, .dev = dev, .live = live, .search = search,
                                .index = index, .rows_f32 = rows_f32, .processor = processor,
                                .queries = queries, .corpus = corpus, .scorer = scorer,
                                .sampler = sampler, .block_start = -1};
    if (config->K > index->count) {
        die(EXIT_BAD_DATA, "index: %d rows are fewer than retriever.k=%d; lower retriever.k",
            index->count, config->K);
    }
    trainer.optim = optim_new(&live->tensors, optim);
    trainer.work = work_new(config, live, E);
    trainer.fixed = xmalloc((size_t)queries->n * E, sizeof(float));
    memcpy(trainer.fixed, fixed, (size_t)queries->n * E * sizeof(float));
    trainer.query_group = xmalloc((size_t)queries->n, sizeof(int32_t));
    for (int i = 0; i < queries->n; i++) {
        trainer.query_group[i] = queries->records[i].group_id;
    }
    trainer.candidates = xmalloc(places * config->K, sizeof(int32_t));
    trainer.block_queries = xmalloc(places, sizeof(int));
    trainer.seen = xcalloc((size_t)queries->n, sizeof *trainer.seen);
    return trainer;
}

void retriever_trainer_free(RetrieverTrainer *trainer) {
    picture_feed_free(trainer->feed);
    optim_free(&trainer->optim);
    arena_free(&trainer->arena);
    work_free(&trainer->work);
    free(trainer->fixed);
    free(trainer->query_group);
    free(trainer->candidates);
    free(trainer->block_queries);
    for (int i = 0; i < trainer->queries->n; i++) {
        free(trainer->seen[i].ids);
    }
    free(trainer->seen);
}

// ---- candidates ----
// Refreshes the search head and searches the queries of the steps until the next refresh in one
// sweep.
static void start_block(RetrieverTrainer *trainer) {
    const RetrieverTrainConfig *config = &trainer->config;
    const int E = trainer->index->dim, K = config->K;
    const int start = trainer->step / config->refresh * config->refresh;
    const int steps = config->steps - start < config->refresh ? config->steps - start
                                                              : config->refresh;
    const int n = steps * config->batch;
    if (trainer->step == start && !(config->is_stale_search_head && start == 0)) {
        tensors_copy(&trainer->search->tensors, &trainer->live->tensors);
    }
    for (int i = 0; i < n; i++) {
        trainer->block_queries[i] = sampler_item(trainer->sampler,
                                                 (int64_t)start * config->batch + i);
    }
    float *q = xmalloc((size_t)n * E, sizeof *q), *f = xmalloc((size_t)n * E, sizeof *f);
    float *scores = xmalloc((size_t)n * K, sizeof *scores);
    int32_t *group = xmalloc((size_t)n, sizeof *group);
    encode_images(q, trainer->dev, trainer->search->tensors.t, &trainer->search->tower,
                  trainer->processor, trainer->queries, trainer->block_queries, n);
    for (int i = 0; i < n; i++) {
        memcpy(f + (size_t)i * E, trainer->fixed + (size_t)trainer->block_queries[i] * E,
               (size_t)E * sizeof *f);
        group[i] = trainer->query_group[trainer->block_queries[i]];
    }
    mix_queries(q, q, f, config->share, n, E);
    index_search(trainer->index, config->side, scores, trainer->candidates, q, group, n, K);
    for (int i = 0; i < n * K; i++) {
        if (trainer->candidates[i] < 0) {
            die(EXIT_BAD_DATA,
                "index: a query has fewer than retriever.k=%d passages outside its own "
                "group; lower retriever.k",
                K);
        }
    }
    trainer->block_start = start;
    const int done = (trainer->step - start) * config->batch; // after a resume
    picture_feed_free(trainer->feed);
    trainer->feed = feed_images_new(trainer->dev, trainer->processor, trainer->queries,
                                    trainer->block_queries + done, n - done);
    free(q);
    free(f);
    free(scores);
    free(group);
}

// ---- evidence ----
static void passage_set_add(PassageSet *set, int32_t id) {
    int low = 0, high = set->count;
    while (low < high) { // first place not below id
        const int middle = (low + high) / 2;
        *(set->ids[middle] < id ? &low : &high) = set->ids[middle] < id ? middle + 1 : middle;
    }
    if (low < set->count && set->ids[low] == id) {
        return;
    }
    if (set->count == set->room) {
        set->room = set->room ? 2 * set->room : 64;
        set->ids = xrealloc(set->ids, (size_t)set->room, sizeof *set->ids);
    }
    memmove(set->ids + low + 1, set->ids + low, (size_t)(set->count - low) * sizeof *set->ids);
    set->ids[low] = id;
    set->count++;
}

// Gold scores g (B,K) of the candidates, and for legacy mode iii the classes predicted with each.
static void gold_scores(RetrieverTrainer *trainer, float *g, int32_t *predicted, const int *queries,
                        const int32_t *candidates) {
    const RetrieverTrainConfig *config = &trainer->config;
    const int B = config->batch, K = config->K, C = trainer->scorer->labels->C;
    Pair *pairs = xmalloc((size_t)B * K, sizeof *pairs);
    float *raw = xmalloc((size_t)B * K * C, sizeof *raw),
          *logprob = xmalloc((size_t)B * K * C, sizeof *raw);
    for (int b = 0; b < B; b++) {
        for (int k = 0; k < K; k++) {
            pairs[b * K + k] = (Pair){queries[b], candidates[b * K + k]};
            passage_set_add(&trainer->seen[queries[b]], candidates[b * K + k]);
        }
    }
    scorer_scores(trainer->scorer, raw, logprob, trainer->queries, trainer->corpus, pairs, B * K);
    for (int b = 0; b < B; b++) {
        const int label = trainer->queries->records[queries[b]].label;
        CHECK(label >= 0 && label < C, "query %d has label %d of %d", queries[b], label, C);
        for (int k = 0; k < K; k++) {
            const int i = b * K + k;
            g[i] = (float)(config->is_double_softmax
                               ? evidence_double_softmax(raw + (size_t)i * C, C, label)
                               : evidence_label(logprob + (size_t)i * C, C, label));
            int best = 0;
            for (int c = 1; c < C; c++) {
                best = logprob[(size_t)i * C + c] > logprob[(size_t)i * C + best] ? c : best;
            }
            predicted[i] = best;
        }
        if (config->is_permuted) { // control: the same values, on the wrong passages
            Rng rng = rng_new(config->seed, RNG_BASELINE, (uint32_t)trainer->step, (uint32_t)b);
            for (int k = K - 1; k > 0; k--) {
                const int j = (int)rng_below(&rng, (uint32_t)k + 1);
                const float swap = g[b * K + k];
                g[b * K + k] = g[b * K + j];
                g[b * K + j] = swap;
            }
        }
    }
    free(pairs);
    free(raw);
    free(logprob);
}

// ---- step ----
// rows (n,E) of the passages ids.
static void load_rows(const RetrieverTrainer *trainer, float *rows, const int32_t *ids, int n) {
    const size_t E = (size_t)trainer->index->dim;
    if (!trainer->rows_f32) {
        index_get_rows(trainer->index, trainer->config.side, ids, n, rows);
        return;
    }
    for (int i = 0; i < n; i++) {
        memcpy(rows + (size_t)i * E, trainer->rows_f32 + (size_t)ids[i] * E, E * sizeof *rows);
    }
}

// s (B,K) from h and the rows.
static void score_candidates(const RetrieverTrainer *trainer, RetrieverWork *work) {
    const RetrieverTrainConfig *config = &trainer->config;
    const int B = config->batch, K = config->K, E = trainer->index->dim;
    for (int b = 0; b < B; b++) {
        mix_queries(work->q, work->h + (size_t)b * E, trainer->fixed + (size_t)work->queries[b] * E,
                    config->share, 1, E);
        for (int k = 0; k < K; k++) {
            work->s[b * K + k] = dot16(work->q, work->rows + (size_t)(b * K + k) * E, E);
        }
    }
}

// dL/dh (B,E) = a sum_d dL/ds_d e_d.
static void head_gradient(const RetrieverTrainer *trainer, RetrieverWork *work) {
    const int B = trainer->config.batch, K = trainer->config.K, E = trainer->index->dim;
    memset(work->dh, 0, (size_t)B * E * sizeof *work->dh);
    for (int i = 0; i < B * K; i++) {
        const float weight = trainer->config.share * work->ds[i], *row = work->rows + (size_t)i * E;
        float *dh = work->dh + (size_t)(i / K) * E;
        for (int e = 0; e < E; e++) {
            dh[e] = fmaf(weight, row[e], dh[e]);
        }
    }
}

// The device's part between the two: loss and dL/ds from s and g.
static void marginal_pass(RetrieverTrainer *trainer, Run *run, RetrieverWork *work) {
    const int B = trainer->config.batch, K = trainer->config.K;
    const size_t pairs = (size_t)B * K, bytes = pairs * sizeof(float);
    float *s = run_take_f32(run, pairs), *g = run_take_f32(run, pairs);
    float *posterior = run_take_f32(run, pairs);
    float *loss = run_take_f32(run, 2 * (size_t)B + pairs); // and ds behind it: one copy back
    int32_t *predicted = run_take_ids(run, work->predicted, pairs);
    if (!run->is_planning) {
        Device *dev = trainer->dev;
        device_copy_in(dev, s, work->s, bytes);
        device_copy_in(dev, g, work->g, bytes);
        float *ds = loss + 2 * (size_t)B;
        run->op->marginal(dev, loss, posterior, ds, s, g, NULL, NULL, predicted, B, K, 1,
                          &trainer->config.marginal);
        device_copy_out(dev, work->loss, loss, (2 * (size_t)B + pairs) * sizeof(float));
    }
}

// One pass of the live head: forward, the host's part, backward. Over an arena with or without
// memory.
static void head_pass(RetrieverTrainer *trainer, Run *run) {
    Device *dev = trainer->dev;
    Head *live = trainer->live;
    RetrieverWork *work = &trainer->work;
    const int B = trainer->config.batch, E = trainer->index->dim, S = live->tower.config.image_size;
    const size_t pixel_count = (size_t)B * 3 * S * S, values = (size_t)B * E;
    const DType t = live->tensors.t;
    EmbedImagesState state;
    float *pixels = run_take_f32(run, pixel_count);
    void *h = run_take(run, (size_t)B, (size_t)E), *dh = run_take(run, (size_t)B, (size_t)E);
    if (!run->is_planning) {
        load_rows(trainer, work->rows, work->candidates, B * trainer->config.K); // nobody waits yet
        device_copy_in(dev, pixels, work->pixels, pixel_count * sizeof *pixels);
    }
    embed_images_fwd(run, &live->tower, &state, h, pixels, B);
    if (!run->is_planning) {
        device_copy_out(dev, work->narrow, h, values * dtype_size(t));
        dtype_widen(work->h, t, work->narrow, values);
        score_candidates(trainer, work);
    }
    marginal_pass(trainer, run, work);
    if (!run->is_planning) {
        head_gradient(trainer, work);
        dtype_narrow(t, work->narrow, work->dh, values);
        device_copy_in(dev, dh, work->narrow, values * dtype_size(t));
    }
    embed_images_bwd(run, &live->tower, &state, dh);
}

Arena retriever_trainer_plan(RetrieverTrainer *trainer) {
    const RetrieverTrainConfig *config = &trainer->config;
    const Index *index = trainer->index;
    Run run = run_new(trainer->dev, trainer->live->tensors.t, &trainer->arena, true);
    Arena plan = arena_plan();
    Run planning = run_planning(&run, &plan);
    head_pass(trainer, &planning);
    if (run.op->topk_scratch) {
        run_scratch(&planning, run.op->topk_scratch(index->dev, index->dtype,
                                                    config->refresh * config->batch, index->count,
                                                    index->dim, config->K));
    }
    return plan;
}

RetrieverStep retriever_trainer_step(RetrieverTrainer *trainer, double lr) {
    const RetrieverTrainConfig *config = &trainer->config;
    const int B = config->batch, S = trainer->live->tower.config.image_size;
    CHECK(trainer->step < config->steps, "step %d of %d", trainer->step, config->steps);
    if (trainer->block_start != trainer->step / config->refresh * config->refresh) {
        start_block(trainer);
    }
    const int offset = (trainer->step - trainer->block_start) * B;
    RetrieverWork *work = &trainer->work;
    work->queries = trainer->block_queries + offset;
    work->candidates = trainer->candidates + (size_t)offset * config->K;
    const ScoreStore *store = trainer->scorer->store;
    const uint64_t hits = store->hits, misses = store->misses;
    gold_scores(trainer, work->g, work->predicted, work->queries, work->candidates);
    take_images(work->pixels, trainer->feed, S, trainer->queries, work->queries, B);
    Run run = run_new(trainer->dev, trainer->live->tensors.t, &trainer->arena, true);
    arena_reserve(&trainer->arena, trainer->dev, "retriever training",
                  retriever_trainer_plan(trainer).peak);
    head_pass(trainer, &run);
    optim_step(&trainer->optim, lr);
    trainer->step++;
    RetrieverStep out = {0};
    for (int b = 0; b < B; b++) {
        out.loss += work->loss[2 * b] / B;
        out.nll += work->loss[2 * b + 1] / B;
    }
    const double hit = (double)(store->hits - hits);
    out.hit_rate = hit / (hit + (double)(store->misses - misses));
    return out;
}

double retriever_trainer_distinct(const RetrieverTrainer *trainer) {
    double used = 0, pairs = 0;
    for (int q = 0; q < trainer->queries->n; q++) {
        used += trainer->seen[q].count > 0;
        pairs += trainer->seen[q].count;
    }
    return used > 0 ? pairs / used : NAN;
}
