// generate: see generate.h.
#include "generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "encode.h"

typedef struct {
    Reader *reader;
    const ReaderBatch *prompts;
    const GenerateConfig *config;
    KvCache *cache;
    Arena arena;
    ReaderBatch next;  // one token of every sequence that goes on
    int *sequence;     // (B) whose rows the logits of the pass are
    float *logits;     // (B,V)
    int32_t *history;  // (T_max + max_tokens) of the sequence at hand, for the penalty
    bool *is_done;     // (B)
    Generated out;
} Generator;

// ---- passes ----
// One pass over an arena with or without memory; its logits go to the host, piece by piece.
static void pass(Generator *g, Run *run, const ReaderBatch *batch) {
    Reader *reader = g->reader;
    const size_t V = (size_t)reader->config.V, C = (size_t)reader->config.block.C;
    const size_t R = (size_t)batch->R, most = (size_t)reader_head_rows(run, reader, batch->R);
    const size_t mark = arena_mark(run->arena);
    ReaderState state;
    void *hidden = run_take(run, R, C);
    reader_hidden_fwd_cached(run, reader, &state, hidden, batch, g->cache);
    void *logits = run_take(run, most, V);
    for (size_t first = 0, rows; first < R; first += rows) {
        rows = (size_t)reader_head_rows(run, reader, (int)(R - first));
        reader_head_fwd(run, reader, logits, run_at(run, hidden, first * C), (int)rows);
        if (!run->is_planning) {
            values_read(run->dev, g->logits + first * V, run->t, logits, rows * V);
        }
    }
    arena_release(run->arena, mark);
}

static void run_pass(Generator *g, const ReaderBatch *batch) {
    const TensorList *list = &g->reader->tensors;
    Run run = run_new(list->dev, list->t, &g->arena, false);
    if (!g->arena.base) { // the prompts; later passes are one row per sequence, never more
        Arena plan = arena_plan();
        Run planning = run_planning(&run, &plan);
        pass(g, &planning, batch);
        arena_reserve(&g->arena, list->dev, "generating", plan.peak);
    }
    pass(g, &run, batch);
}

// ---- one token ----
// Penalizes the row of sequence b, keeps it, and chooses.
static int32_t choose(Generator *g, int b, float *scores) {
    const ReaderBatch *prompts = g->prompts;
    const GenerateConfig *config = g->config;
    const ReaderConfig *reader = &g->reader->config;
    Generated *out = &g->out;
    const int V = reader->V, step = out->rows[b], first = prompts->cu_seqlens[b];
    const int T = prompts->cu_seqlens[b + 1] - first;
    memcpy(g->history, prompts->ids + first, (size_t)T * sizeof *g->history);
    memcpy(g->history + T, out->ids + (size_t)b * out->max_tokens,
           (size_t)step * sizeof *g->history);
    choice_penalize(scores, V, g->history, T + step, config->choice.penalty);
    if (out->scores) {
        memcpy(out->scores + ((size_t)b * out->max_tokens + step) * V, scores,
               (size_t)V * sizeof *scores);
    }
    if (reader->image_id >= 0) {
        scores[reader->image_id] = -INFINITY;
    }
    int32_t id;
    if (config->choice.is_sampled) {
        Rng rng = rng_new(config->seed, RNG_GENERATE, (uint32_t)step, config->first + (uint32_t)b);
        choice_warp(scores, V, &config->choice);
        id = choice_draw(scores, V, rng_uniform(&rng));
    } else {
        id = choice_largest(scores, V);
    }
    if (id < 0) {
        die(EXIT_DIVERGED, "the reader's logits for token %d of answer %d are not numbers; "
            "weights.check_finite=true looks at its weights", step, b);
    }
    return id;
}

// One more token of every sequence of the pass. Returns whether any sequence goes on.
static bool take_tokens(Generator *g, generate_seen *seen, void *ctx) {
    Generated *out = &g->out;
    const GenerateConfig *config = g->config;
    const int count = g->next.B ? g->next.B : g->prompts->B;
    bool goes_on = false;
    for (int r = 0; r < count; r++) {
        const int b = g->sequence[r];
        int32_t *ids = out->ids + (size_t)b * out->max_tokens;
        int32_t id = choose(g, b, g->logits + (size_t)r * out->V);
        if (g->is_done[b]) { // only its scores were wanted
            ids[out->rows[b]++] = config->pad;
            continue;
        }
        ids[out->rows[b]++] = id;
        out->counts[b] = out->rows[b];
        out->is_over[b] = choice_is_end(&config->choice, id);
        const bool is_last = out->is_over[b] || out->counts[b] == out->max_tokens;
        const bool is_stopped = seen && !seen(ctx, b, ids, out->counts[b], is_last);
        out->is_over[b] |= is_stopped;
        g->is_done[b] = is_last || is_stopped;
        goes_on |= !g->is_done[b];
    }
    return goes_on;
}

static void next_batch(Generator *g) {
    const Generated *out = &g->out;
    reader_batch_clear(&g->next);
    for (int b = 0; b < out->B; b++) {
        if (!g->is_done[b] || g->config->pad >= 0) {
            const int32_t last = out->ids[(size_t)b * out->max_tokens + out->rows[b] - 1];
            g->sequence[g->next.B] = b;
            reader_batch_continue(&g->next, g->cache, b, last);
        }
    }
}

// ---- all of them ----
static Generator generator_new(Reader *reader, const ReaderBatch *prompts,
                               const GenerateConfig *config) {
    const int B = prompts->B, V = reader->config.V, most = config->max_tokens;
    CHECK(B >= 1 && prompts->R == B && most >= 1, "B=%d R=%d max_tokens=%d", B, prompts->R, most);
    const size_t room = (size_t)prompts->max_T + (size_t)most, ids = (size_t)B * most;
    if (room > INT32_MAX / (size_t)B) {
        die(EXIT_RESOURCE, "memory: %d answers of up to %zu tokens are too many at once", B, room);
    }
    Generator g = {.reader = reader, .prompts = prompts, .config = config,
                   .cache = reader_cache_new(reader, B, (int)room), .next = reader_batch_new(),
                   .sequence = xmalloc((size_t)B, sizeof(int)),
                   .logits = xmalloc((size_t)B * V, sizeof(float)),
                   .history = xmalloc(room, sizeof(int32_t)),
                   .is_done = xcalloc((size_t)B, sizeof(bool))};
    g.out = (Generated){.B = B, .max_tokens = most, .V = V, .ids = xcalloc(ids, sizeof(int32_t)),
                        .counts = xcalloc((size_t)B, sizeof(int)),
                        .is_over = xcalloc((size_t)B, sizeof(bool)),
                        .rows = xcalloc((size_t)B, sizeof(int)),
                        .cache_bytes = g.cache->arena.size};
    if (config->keeps_scores) {
        g.out.scores = xcalloc(ids * (size_t)V, sizeof(float));
    }
    for (int b = 0; b < B; b++) {
        CHECK(prompts->wanted[b] == prompts->cu_seqlens[b + 1] - 1, "wanted[%d]=%d", b,
              prompts->wanted[b]);
        g.sequence[b] = b;
    }
    return g;
}

Generated generate_new(Reader *reader, const ReaderBatch *prompts, const GenerateConfig *config,
                       generate_seen *seen, void *ctx) {
    Generator g = generator_new(reader, prompts, config);
    run_pass(&g, prompts);
    while (take_tokens(&g, seen, ctx)) {
        next_batch(&g);
        run_pass(&g, &g.next);
    }
    kv_cache_free(g.cache);
    arena_free(&g.arena);
    reader_batch_free(&g.next);
    free(g.sequence);
    free(g.logits);
    free(g.history);
    free(g.is_done);
    return g.out;
}

void generated_free(Generated *generated) {
    free(generated->ids);
    free(generated->counts);
    free(generated->is_over);
    free(generated->scores);
    free(generated->rows);
    *generated = (Generated){0};
}
