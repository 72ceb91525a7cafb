// scorer: see scorer.h.
#include "scorer.h"

#include <stdlib.h>
#include <string.h>

#include "encode.h"
#include "evidence.h"

// Raised whenever a change of the arithmetic would make stored scores differ from computed ones.
#define NUMERICS_VERSION 1
#define PROMPTS_PER_PASS 64 // enough rows to fill the products, little memory

// ---- labels ----
LabelSet label_set_new(const Tokenizer *tokenizer, const char *const *names, int C,
                       bool space_tokens) {
    LabelSet labels = {.C = C, .counts = xcalloc((size_t)C, sizeof(int))};
    for (int pass = 0; pass < 2; pass++) { // lengths first, then the tokens
        for (int c = 0; c < C; c++) {
            char *text = xformat_new("%s%s", space_tokens ? " " : "", names[c]);
            const int32_t n = tokenizer_encode(tokenizer, text, strlen(text), NULL, 0);
            if (n < 1) {
                die(EXIT_CONFIG, "classes: label %d ('%s') has no token; give it a name", c,
                    names[c]);
            }
            if (pass) {
                tokenizer_encode(tokenizer, text, strlen(text),
                                 labels.tokens + c * labels.max_tokens, n);
            }
            labels.counts[c] = n;
            labels.max_tokens = n > labels.max_tokens ? n : labels.max_tokens;
            free(text);
        }
        if (!pass) {
            const size_t count = (size_t)C * labels.max_tokens;
            labels.tokens = xmalloc(count, sizeof(int32_t));
            memset(labels.tokens, 0xff, count * sizeof(int32_t));
        }
    }
    labels.hash = xxh64(labels.tokens, (size_t)C * labels.max_tokens * sizeof(int32_t),
                        (uint64_t)C);
    return labels;
}

void label_set_free(LabelSet *labels) {
    free(labels->tokens);
    free(labels->counts);
    *labels = (LabelSet){0};
}

// ---- images ----
static ReaderImage reader_image(const VisionConfig *vision, PicturePixels pixels) {
    const int unit = vision->P * vision->merge;
    if (pixels.width % unit != 0 || pixels.height % unit != 0) {
        die(EXIT_CONFIG,
            "reader.processor: gives %dx%d pixels, but the reader wants multiples of %d; "
            "name the processor of reader.preset",
            pixels.width, pixels.height, unit);
    }
    return (ReaderImage){.rows = pixels.height / vision->P, .columns = pixels.width / vision->P,
                         .pixels = pixels.data};
}

ReaderImage reader_image_new(Device *dev, const ProcessorConfig *processor,
                             const VisionConfig *vision, const Image *image, const char *name) {
    PicturePixels pixels;
    error_die(name, processor_size(processor, image->width, image->height, &pixels.width,
                                   &pixels.height));
    pixels.data = xmalloc((size_t)3 * pixels.width * pixels.height, sizeof *pixels.data);
    processor_run(processor, dev, image, pixels.data);
    return reader_image(vision, pixels);
}

ReaderImage reader_image_take_new(PictureFeed *feed, const VisionConfig *vision, Dataset *ds,
                                  int row) {
    const PicturePixels pixels = picture_feed_take_new(feed, ds, row);
    if (!pixels.data) {
        die(EXIT_BAD_DATA, "%s: the image of row %d ('%s') is bad, but an index has the row; "
            "run jomed index build", ds->records[row].path, row, ds->records[row].id);
    }
    return reader_image(vision, pixels);
}

ReaderImage reader_image_of_row(const ProcessorConfig *processor, const VisionConfig *vision,
                                Dataset *ds, int row) {
    PictureFeed *feed = picture_feed_new(processor, 0, 1);
    picture_feed_want(feed, ds, row);
    const ReaderImage out = reader_image_take_new(feed, vision, ds, row);
    picture_feed_free(feed);
    return out;
}

uint64_t tensors_hash(const TensorList *list) {
    uint64_t hash = (uint64_t)list->t;
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        const size_t bytes = tensor->count * dtype_size(list->t);
        void *host = xmalloc(bytes, 1);
        device_copy_out(list->dev, host, tensor->data, bytes);
        hash = xxh64(tensor->name, strlen(tensor->name), hash);
        hash = xxh64(host, bytes, hash);
        free(host);
    }
    return hash;
}

// ---- scorer ----
static uint64_t block_hash(const BlockConfig *b, uint64_t seed) {
    const double words[] = {b->C,         b->H,         b->Hkv,       b->D,
                            b->F,         b->norm,      b->eps,       b->is_post_norm,
                            b->is_causal, b->has_alibi, b->has_rope,  b->pairing,
                            b->is_gated,  b->act,       b->lora.rank, b->lora.alpha,
                            b->lora.is_rslora};
    return xxh64(words, sizeof words, seed);
}

// Hash of all that decides what a reader says: its tensors, and the numbers of its equations that
// no tensor shows (alpha of the adapters, theta of the positions).
static uint64_t reader_hash(const Reader *reader) {
    const ReaderConfig *r = &reader->config;
    const VisionConfig *v = &r->vision;
    const double words[] = {r->family,      r->V,           r->theta,    r->sections[0],
                            r->sections[1], r->sections[2], r->image_id, r->is_tied,
                            v->P,           v->merge,       v->frames,   v->theta,
                            r->has_flat_positions};
    uint64_t hash = xxh64(words, sizeof words, tensors_hash(&reader->tensors));
    hash = block_hash(&r->block, hash);
    return block_hash(&v->block, hash);
}

Scorer scorer_new(Device *dev, Reader *reader, PromptMaker *prompts,
                  const ProcessorConfig *processor, const LabelSet *labels, ScoreStore *store) {
    CHECK(store->C == labels->C, "store of %d labels, %d labels", store->C, labels->C);
    // Labels of several tokens take a prompt each: the pass stays as large as it is for one.
    const int each = labels->max_tokens == 1 ? 1 : labels->C;
    Scorer scorer = {.dev = dev, .reader = reader, .prompts = prompts, .processor = processor,
                     .labels = labels, .store = store,
                     .features = feature_cache_new(dev, SCORER_FEATURE_LIMIT),
                     .batch = reader_batch_new(),
                     .penalty = 1,
                     .pairs_per_pass = each < PROMPTS_PER_PASS ? PROMPTS_PER_PASS / each : 1};
    const uint64_t words[] = {NUMERICS_VERSION, reader_hash(reader), prompt_hash(prompts),
                              labels->hash, processor_hash(processor)};
    scorer.context = xxh64(words, sizeof words, 0);
    return scorer;
}

void scorer_free(Scorer *scorer) {
    feature_cache_free(&scorer->features);
    arena_free(&scorer->arena);
    reader_batch_free(&scorer->batch);
}

// What the picture of a row depends on: the bytes of its file, and the policy, which decides
// whether they are a picture or a grey square.
static uint64_t image_key(Dataset *ds, int row) {
    const ImagePolicy *policy = &ds->policy;
    const uint64_t words[] = {dataset_image_hash(ds, row), policy->refuse_warnings,
                              (uint64_t)policy->limits.max_side, policy->limits.max_pixels,
                              (uint64_t)policy->limits.max_scans};
    return xxh64(words, sizeof words, 0);
}

// A feed of the pictures of a pass whose features are not kept, each once, in the order of use.
static PictureFeed *feed_of_pass_new(const Scorer *scorer, const Pair *pairs, int n,
                                     Dataset *queries, Dataset *corpus) {
    uint64_t *seen = xmalloc((size_t)n * 2, sizeof *seen);
    const int threads = device_threads(scorer->dev);
    PictureFeed *feed = picture_feed_new(scorer->processor, threads, 2 * threads);
    int count = 0;
    for (int i = 0; i < 2 * n; i++) {
        Dataset *ds = i % 2 == 0 ? queries : corpus;
        const int row = i % 2 == 0 ? pairs[i / 2].query : pairs[i / 2].passage;
        const uint64_t key = row >= 0 ? image_key(ds, row) : 0;
        bool is_new = row >= 0 && !feature_cache_has(&scorer->features, key);
        for (int k = 0; k < count && is_new; k++) {
            is_new = seen[k] != key;
        }
        if (is_new) {
            seen[count++] = key;
            picture_feed_want(feed, ds, row);
        }
    }
    free(seen);
    return feed;
}

// The features of a record's image, computed on the first use.
static ReaderImage image_features(Scorer *scorer, PictureFeed *feed, Dataset *ds, int row,
                                  int pinned) {
    const Feature *feature = feature_cache_get(&scorer->features, image_key(ds, row));
    if (!feature) {
        const VisionConfig *vision = &scorer->reader->config.vision;
        // Features that were there may have been dropped within the pass: then not in the feed.
        ReaderImage picture = picture_feed_is_next(feed, ds, row)
                                  ? reader_image_take_new(feed, vision, ds, row)
                                  : reader_image_of_row(scorer->processor, vision, ds, row);
        const DType t = scorer->reader->tensors.t;
        const size_t count = (size_t)vision_tokens(vision, &picture) * vision->C_out;
        feature = feature_cache_put(&scorer->features, image_key(ds, row), count * dtype_size(t),
                                    picture.rows, picture.columns, pinned);
        Run run = run_new(scorer->dev, t, &scorer->arena, false);
        Arena plan = arena_plan();
        Run planning = run_planning(&run, &plan);
        reader_vision_fwd(&planning, scorer->reader, NULL, &picture, 1);
        arena_reserve(&scorer->arena, scorer->dev, "scoring", plan.peak);
        reader_vision_fwd(&run, scorer->reader, feature->data, &picture, 1);
        free((void *)picture.pixels);
    }
    return (ReaderImage){.rows = feature->rows, .columns = feature->columns,
                         .features = feature->data};
}

// Picks of one pass: which row of the logits and which token each of them reads.
typedef struct {
    int32_t *row, *token; // (room)
    int count;
} Picks;

static Picks picks_new(const LabelSet *labels, int pairs) {
    int each = 0;
    for (int c = 0; c < labels->C; c++) {
        each += labels->counts[c];
    }
    const size_t room = (size_t)pairs * each;
    return (Picks){.row = xmalloc(room, sizeof(int32_t)), .token = xmalloc(room, sizeof(int32_t))};
}

static void pick(Picks *picks, int row, int32_t token) {
    picks->row[picks->count] = row;
    picks->token[picks->count++] = token;
}

// Adds the prompts of a pair to the batch: one where all labels are single tokens, else one per
// label.
static void add_pair(Scorer *scorer, Picks *picks, const PromptInput *input) {
    const LabelSet *labels = scorer->labels;
    if (labels->max_tokens == 1) {
        const int row = scorer->batch.R;
        prompt_add(scorer->prompts, &scorer->batch, input, NULL, 0);
        for (int c = 0; c < labels->C; c++) {
            pick(picks, row, labels->tokens[c]);
        }
        return;
    }
    for (int c = 0; c < labels->C; c++) {
        const int32_t *tokens = labels->tokens + c * labels->max_tokens;
        const int row = scorer->batch.R;
        prompt_add(scorer->prompts, &scorer->batch, input, tokens, labels->counts[c]);
        for (int i = 0; i < labels->counts[c]; i++) {
            pick(picks, row + i, tokens[i]);
        }
    }
}

// What the label tokens of a pass are given, on the device.
typedef struct {
    float *raw, *logprob, *lse;     // (picks), (picks), (R)
    int32_t *greedy, *row, *token;  // (R), (picks), (picks): rows of their piece of the logits
} Scores;

static Scores take_scores(Run *run, const Picks *picks, int R, int piece) {
    const size_t S = (size_t)picks->count;
    Scores out = {.raw = run_take_f32(run, S), .logprob = run_take_f32(run, S),
                  .lse = run_take_f32(run, (size_t)R),
                  .greedy = (int32_t *)run_take_f32(run, (size_t)R)};
    int32_t *row = xmalloc(S, sizeof *row);
    for (size_t s = 0; s < S; s++) {
        row[s] = picks->row[s] % piece;
    }
    out.row = run_take_ids(run, row, S);
    out.token = run_take_ids(run, picks->token, S);
    free(row);
    return out;
}

// The pass itself, over an arena with or without memory. Rows of picks ascend, and each has some.
static Scores pass_batch(Scorer *scorer, Run *run, const Picks *picks) {
    Reader *reader = scorer->reader;
    const int R = scorer->batch.R, V = reader->config.V, piece = reader_head_rows(run, reader, R);
    const Scores out = take_scores(run, picks, R, piece);
    const size_t C = (size_t)reader->config.block.C;
    ReaderState state;
    void *hidden = run_take(run, (size_t)R, C);
    reader_hidden_fwd(run, reader, &state, hidden, &scorer->batch);
    void *logits = run_take(run, (size_t)piece, (size_t)V);
    for (int first = 0, s = 0, rows; first < R; first += rows) {
        rows = reader_head_rows(run, reader, R - first);
        int S = 0;
        while (s + S < picks->count && picks->row[s + S] < first + rows) {
            S++;
        }
        reader_head_fwd(run, reader, logits, run_at(run, hidden, (size_t)first * C), rows);
        RUN(run, label_logprob, out.raw + s, out.logprob + s, out.greedy + first, out.lse + first,
            logits, out.row + s, out.token + s, S, rows, V);
        s += S;
    }
    return out;
}

// Runs the batch; raw and logprob (picks), greedy (R) on the host. planned: it is only measured.
static void run_batch(Scorer *scorer, const Picks *picks, float *raw, float *logprob,
                      int32_t *greedy, size_t *planned) {
    const size_t R = (size_t)scorer->batch.R, S = (size_t)picks->count;
    Run run = run_new(scorer->dev, scorer->reader->tensors.t, &scorer->arena, false);
    Arena plan = arena_plan();
    Run planning = run_planning(&run, &plan);
    pass_batch(scorer, &planning, picks);
    if (planned) {
        *planned = plan.peak;
        return;
    }
    arena_reserve(&scorer->arena, scorer->dev, "scoring", plan.peak);
    const Scores scores = pass_batch(scorer, &run, picks);
    device_copy_out(scorer->dev, raw, scores.raw, S * sizeof *raw);
    device_copy_out(scorer->dev, logprob, scores.logprob, S * sizeof *logprob);
    device_copy_out(scorer->dev, greedy, scores.greedy, R * sizeof *greedy);
    scorer->forwards += (uint64_t)scorer->batch.B;
}

static ScoreKey pair_key(const Scorer *scorer, Dataset *queries, Dataset *corpus, Pair pair) {
    const Record *query = &queries->records[pair.query];
    const uint64_t q = xxh64(query->question, strlen(query->question),
                             image_key(queries, pair.query));
    uint64_t p = 0; // closed book
    if (pair.passage >= 0) {
        const Record *passage = &corpus->records[pair.passage];
        p = xxh64(passage->text, strlen(passage->text), image_key(corpus, pair.passage)) | 1;
    }
    return score_key(scorer->context, q, p);
}

// ---- passes ----
// Pairs that the store does not know, each once, and the places of the answer that wait for them.
typedef struct {
    Pair *pairs;          // (pairs_per_pass)
    ScoreKey *keys;
    float *raw, *logprob; // (pairs_per_pass,C)
    int count;
    int *place, *slot;    // (waiting): row of the answer, and the pair it wants
    int waiting, room;
} Pass;

static void pass_init(Pass *pass, const Scorer *scorer) {
    const size_t most = (size_t)scorer->pairs_per_pass, values = most * scorer->labels->C;
    *pass = (Pass){.pairs = xmalloc(most, sizeof *pass->pairs),
                   .keys = xmalloc(most, sizeof *pass->keys),
                   .raw = xmalloc(values, sizeof(float)),
                   .logprob = xmalloc(values, sizeof(float))};
}

static void pass_free(Pass *pass) {
    free(pass->pairs);
    free(pass->keys);
    free(pass->raw);
    free(pass->logprob);
    free(pass->place);
    free(pass->slot);
}

static void pass_add(Pass *pass, Pair pair, ScoreKey key, int place) {
    int slot = 0; // both heads may have found the same passage
    while (slot < pass->count && memcmp(&pass->keys[slot], &key, sizeof key) != 0) {
        slot++;
    }
    if (slot == pass->count) {
        pass->pairs[slot] = pair;
        pass->keys[slot] = key;
        pass->count++;
    }
    if (pass->waiting == pass->room) {
        pass->room = pass->room ? 2 * pass->room : 64;
        pass->place = xrealloc(pass->place, (size_t)pass->room, sizeof *pass->place);
        pass->slot = xrealloc(pass->slot, (size_t)pass->room, sizeof *pass->slot);
    }
    pass->place[pass->waiting] = place;
    pass->slot[pass->waiting++] = slot;
}

// Sums the log-probabilities of the labels' tokens and hands everything to the store.
static void keep_scores(Scorer *scorer, Pass *pass, const float *raw, const float *logprob,
                        const float *own, const int32_t *greedy, const int *first_row) {
    const LabelSet *labels = scorer->labels;
    for (int i = 0, s = 0; i < pass->count; i++) {
        float *out_raw = pass->raw + (size_t)i * labels->C;
        float *out_logprob = pass->logprob + (size_t)i * labels->C;
        for (int c = 0; c < labels->C; c++) {
            out_raw[c] = own ? own[(size_t)i * labels->C + c] : raw[s];
            out_logprob[c] = 0;
            for (int k = 0; k < labels->counts[c]; k++) {
                out_logprob[c] += logprob[s++];
            }
        }
        const Error error = score_store_put(scorer->store, pass->keys[i], out_raw, out_logprob,
                                            greedy[first_row[i]]);
        error_die(scorer->store->path ? scorer->store->path : "score store", error);
    }
}

// The inputs of n pairs. Their images stay pinned while the batch of these pairs is built.
static void take_inputs(Scorer *scorer, PromptInput *inputs, Dataset *queries, Dataset *corpus,
                        const Pair *pairs, int n) {
    PictureFeed *feed = feed_of_pass_new(scorer, pairs, n, queries, corpus);
    for (int i = 0; i < n; i++) {
        const Pair pair = pairs[i];
        inputs[i] = (PromptInput){.question = queries->records[pair.query].question, .caption = ""};
        // Two images a pair: those of this pass must outlive the building of its batch.
        inputs[i].query_image = image_features(scorer, feed, queries, pair.query, 2 * i + 1);
        if (pair.passage >= 0) {
            inputs[i].passage_image = image_features(scorer, feed, corpus, pair.passage, 2 * i + 2);
            inputs[i].caption = corpus->records[pair.passage].text;
        }
    }
    picture_feed_free(feed);
}

// ---- own words ----
void scorer_set_own(Scorer *scorer, bool is_greedy_prefix, double penalty) {
    CHECK(scorer->pairs == 0, "%llu pairs are scored already", (unsigned long long)scorer->pairs);
    scorer->is_greedy_prefix = is_greedy_prefix && scorer->labels->max_tokens > 1;
    scorer->penalty = penalty;
    if (scorer->is_greedy_prefix || penalty != 1) { // without them the same scores as ever
        scorer->context = xxh64(&penalty, sizeof penalty,
                                scorer->context + (scorer->is_greedy_prefix ? 1 : 0));
    }
}

static Generated generate_inputs_new(Scorer *scorer, const PromptInput *inputs, int n,
                                     const GenerateConfig *config) {
    reader_batch_clear(&scorer->batch);
    for (int i = 0; i < n; i++) {
        prompt_add(scorer->prompts, &scorer->batch, &inputs[i], NULL, 0);
    }
    return generate_new(scorer->reader, &scorer->batch, config, NULL, NULL);
}

Generated scorer_generate_new(Scorer *scorer, Dataset *queries, Dataset *corpus, const Pair *pairs,
                              int n, const GenerateConfig *config) {
    PromptInput *inputs = xmalloc((size_t)n, sizeof *inputs);
    take_inputs(scorer, inputs, queries, corpus, pairs, n);
    const Generated out = generate_inputs_new(scorer, inputs, n, config);
    free(inputs);
    return out;
}

// raw (n,C) of pairs, from the reader's own answers.
static void own_logits(Scorer *scorer, float *raw, const PromptInput *inputs, int n) {
    const LabelSet *labels = scorer->labels;
    const int steps = scorer->is_greedy_prefix ? labels->max_tokens : 1;
    GenerateConfig config = {.choice = choice_greedy(), .max_tokens = steps, .pad = -1,
                             .keeps_scores = true};
    config.choice.penalty = scorer->penalty;
    Generated said = generate_inputs_new(scorer, inputs, n, &config);
    for (int i = 0; i < n; i++) {
        const float *scores = said.scores + (size_t)i * steps * said.V;
        for (int c = 0; c < labels->C; c++) {
            const int count = labels->counts[c] < steps ? labels->counts[c] : steps;
            raw[(size_t)i * labels->C + c] =
                (float)evidence_own_logit(scores, steps, said.V,
                                          labels->tokens + (size_t)c * labels->max_tokens, count);
        }
    }
    generated_free(&said);
}

// Scores the pairs of a pass, puts them into the store, and leaves the pass without pairs.
static void run_pass(Scorer *scorer, Pass *pass, float *raw, float *logprob, Dataset *queries,
                     Dataset *corpus) {
    const size_t C = (size_t)scorer->labels->C;
    Picks picks = picks_new(scorer->labels, pass->count);
    int *first_row = xmalloc((size_t)pass->count, sizeof *first_row);
    reader_batch_clear(&scorer->batch);
    PromptInput *inputs = xmalloc((size_t)pass->count, sizeof *inputs);
    take_inputs(scorer, inputs, queries, corpus, pass->pairs, pass->count);
    for (int i = 0; i < pass->count; i++) {
        first_row[i] = scorer->batch.R;
        add_pair(scorer, &picks, &inputs[i]);
    }
    const size_t count = (size_t)picks.count;
    float *all_raw = xmalloc(2 * count, sizeof *all_raw), *all_logprob = all_raw + count;
    int32_t *greedy = xmalloc((size_t)scorer->batch.R, sizeof *greedy);
    run_batch(scorer, &picks, all_raw, all_logprob, greedy, NULL);
    float *own = NULL; // (pairs,C) in place of raw
    if (scorer->is_greedy_prefix || scorer->penalty != 1) {
        own = xmalloc((size_t)pass->count * C, sizeof *own);
        own_logits(scorer, own, inputs, pass->count);
    }
    keep_scores(scorer, pass, all_raw, all_logprob, own, greedy, first_row);
    free(own);
    free(inputs);
    for (int i = 0; i < pass->waiting; i++) {
        const size_t to = (size_t)pass->place[i] * C, from = (size_t)pass->slot[i] * C;
        if (raw) {
            memcpy(raw + to, pass->raw + from, C * sizeof *raw);
        }
        if (logprob) {
            memcpy(logprob + to, pass->logprob + from, C * sizeof *logprob);
        }
    }
    pass->count = pass->waiting = 0;
    free(all_raw);
    free(greedy);
    free(picks.row);
    free(picks.token);
    free(first_row);
}

void scorer_scores(Scorer *scorer, float *raw, float *logprob, Dataset *queries, Dataset *corpus,
                   const Pair *pairs, int n) {
    const size_t C = (size_t)scorer->labels->C;
    Pass pass;
    pass_init(&pass, scorer);
    scorer->pairs += (uint64_t)n;
    for (int i = 0; i < n; i++) {
        const ScoreKey key = pair_key(scorer, queries, corpus, pairs[i]);
        float *to_raw = raw ? raw + (size_t)i * C : NULL;
        float *to_logprob = logprob ? logprob + (size_t)i * C : NULL;
        if (!score_store_get(scorer->store, key, to_raw, to_logprob, NULL)) {
            pass_add(&pass, pairs[i], key, i);
        }
        if (pass.count == scorer->pairs_per_pass) {
            run_pass(scorer, &pass, raw, logprob, queries, corpus);
        }
    }
    if (pass.count > 0) {
        run_pass(scorer, &pass, raw, logprob, queries, corpus);
    }
    pass_free(&pass);
}

// ---- memory ----
static const char *longest(const Dataset *ds, bool is_question) {
    const char *out = "";
    for (int i = 0; i < ds->n; i++) {
        const char *text = is_question ? ds->records[i].question : ds->records[i].text;
        out = strlen(text) > strlen(out) ? text : out;
    }
    return out;
}

size_t scorer_plan(Scorer *scorer, Dataset *queries, Dataset *corpus, size_t *features) {
    const VisionConfig *vision = &scorer->reader->config.vision;
    PromptInput input = {.question = longest(queries, true), .caption = longest(corpus, false)};
    input.query_image = reader_image_of_row(scorer->processor, vision, queries, 0);
    input.passage_image = reader_image_of_row(scorer->processor, vision, corpus, 0);
    float *const pixels[2] = {(float *)input.query_image.pixels,
                              (float *)input.passage_image.pixels};
    const size_t row = (size_t)vision->C_out * dtype_size(scorer->reader->tensors.t);
    const size_t kept = row * ((size_t)vision_tokens(vision, &input.query_image) * queries->n +
                               (size_t)vision_tokens(vision, &input.passage_image) * corpus->n);
    *features = kept < SCORER_FEATURE_LIMIT ? kept : SCORER_FEATURE_LIMIT;
    input.query_image.features = input.passage_image.features = pixels[0]; // kept, and never read
    const int cut_captions = scorer->prompts->cut_captions;
    Picks picks = picks_new(scorer->labels, scorer->pairs_per_pass);
    reader_batch_clear(&scorer->batch);
    for (int i = 0; i < scorer->pairs_per_pass; i++) {
        add_pair(scorer, &picks, &input);
    }
    size_t bytes;
    run_batch(scorer, &picks, NULL, NULL, NULL, &bytes);
    scorer->prompts->cut_captions = cut_captions;
    free(picks.row);
    free(picks.token);
    free(pixels[0]);
    free(pixels[1]);
    return bytes;
}
