// scorer: see scorer.h.
#include "scorer.h"

#include <stdlib.h>
#include <string.h>

#include "encode.h"

// Raised whenever a change of the arithmetic would make stored scores differ from computed ones.
#define NUMERICS_VERSION 1
#define FEATURE_LIMIT ((size_t)1 << 30) // bytes of kept vision features

// ---- labels ----
LabelSet label_set_new(const Tokenizer *tokenizer, const char *const *names, int C,
                       bool space_tokens) {
    LabelSet labels = {.C = C, .counts = xcalloc((size_t)C, sizeof(int))};
    for (int pass = 0; pass < 2; pass++) { // lengths first, then the tokens
        for (int c = 0; c < C; c++) {
            char *text = xformat_new("%s%s", space_tokens ? " " : "", names[c]);
            const int32_t n = tokenizer_encode(tokenizer, text, strlen(text), NULL, 0);
            if (n < 1) {
                die(EXIT_CONFIG, "classes: label %d ('%s') has no token; give it a name", c, names[c]);
            }
            if (pass) {
                tokenizer_encode(tokenizer, text, strlen(text), labels.tokens + c * labels.max_tokens, n);
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
    labels.hash = xxh64(labels.tokens, (size_t)C * labels.max_tokens * sizeof(int32_t), (uint64_t)C);
    return labels;
}

void label_set_free(LabelSet *labels) {
    free(labels->tokens);
    free(labels->counts);
    *labels = (LabelSet){0};
}

// ---- images ----
Error reader_image_new(ReaderImage *out, Device *dev, const ProcessorConfig *processor,
                       const VisionConfig *vision, const Image *image) {
    int width, height;
    const Error error = processor_size(processor, image->width, image->height, &width, &height);
    if (error.code) {
        return error;
    }
    CHECK(width % vision->P == 0 && height % vision->P == 0, "%dx%d, patch %d", width, height,
          vision->P);
    float *pixels = xmalloc((size_t)3 * width * height, sizeof *pixels);
    processor_run(processor, dev, image, pixels);
    *out = (ReaderImage){.rows = height / vision->P, .columns = width / vision->P, .pixels = pixels};
    return error;
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
Scorer scorer_new(Device *dev, Reader *reader, PromptMaker *prompts,
                  const ProcessorConfig *processor, const LabelSet *labels, ScoreStore *store) {
    CHECK(store->C == labels->C, "store of %d labels, %d labels", store->C, labels->C);
    Scorer scorer = {.dev = dev, .reader = reader, .prompts = prompts, .processor = processor,
                     .labels = labels, .store = store,
                     .features = feature_cache_new(dev, FEATURE_LIMIT),
                     .batch = reader_batch_new(), .prompts_per_pass = 64};
    const uint64_t words[] = {NUMERICS_VERSION, tensors_hash(&reader->tensors), prompt_hash(prompts),
                              labels->hash, processor_hash(processor)};
    scorer.context = xxh64(words, sizeof words, 0);
    return scorer;
}

void scorer_free(Scorer *scorer) {
    feature_cache_free(&scorer->features);
    arena_free(&scorer->arena);
    reader_batch_free(&scorer->batch);
}

// The features of a record's image, computed on the first use.
static ReaderImage image_features(Scorer *scorer, Dataset *ds, int row, int pinned) {
    const uint64_t key = dataset_image_hash(ds, row);
    const Feature *feature = key ? feature_cache_get(&scorer->features, key) : NULL;
    if (!feature) {
        Image image;
        if (!dataset_image(ds, row, &image)) {
            die(EXIT_BAD_DATA, "%s: the image of row %d is bad; set data.on_bad_image=blank",
                ds->records[row].path, row);
        }
        const VisionConfig *vision = &scorer->reader->config.vision;
        ReaderImage picture;
        error_die(ds->records[row].path,
                  reader_image_new(&picture, scorer->dev, scorer->processor, vision, &image));
        image_free(&image);
        const DType t = scorer->reader->tensors.t;
        const size_t count = (size_t)vision_tokens(vision, &picture) * vision->C_out;
        feature = feature_cache_put(&scorer->features, key,
                                    count * dtype_size(t), picture.rows, picture.columns, pinned);
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
    int32_t *row, *token;
    int count;
} Picks;

static void pick(Picks *picks, int row, int32_t token) {
    picks->row = xrealloc(picks->row, (size_t)picks->count + 1, sizeof(int32_t));
    picks->token = xrealloc(picks->token, (size_t)picks->count + 1, sizeof(int32_t));
    picks->row[picks->count] = row;
    picks->token[picks->count++] = token;
}

// Adds the prompts of a pair to the batch: one where all labels are single tokens, else one per label.
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

// Runs the batch; raw and logprob (picks), greedy (R) on the host.
static void run_batch(Scorer *scorer, const Picks *picks, float *raw, float *logprob,
                      int32_t *greedy) {
    Reader *reader = scorer->reader;
    const int R = scorer->batch.R, V = reader->config.V, S = picks->count;
    Run run = run_new(scorer->dev, reader->tensors.t, &scorer->arena, false);
    for (int pass = 0; pass < 2; pass++) {
        Arena plan = arena_plan();
        Run planning = run_planning(&run, &plan), *now = pass ? &run : &planning;
        ReaderState state;
        void *logits = run_take(now, (size_t)R, (size_t)V);
        float *device_raw = run_take_f32(now, (size_t)S), *device_log = run_take_f32(now, (size_t)S);
        float *lse = run_take_f32(now, (size_t)R);
        int32_t *device_greedy = (int32_t *)run_take_f32(now, (size_t)R);
        int32_t *row = run_take_ids(now, picks->row, (size_t)S);
        int32_t *token = run_take_ids(now, picks->token, (size_t)S);
        reader_fwd(now, reader, &state, logits, &scorer->batch);
        RUN(now, label_logprob, device_raw, device_log, device_greedy, lse, logits, row, token, S, R,
            V);
        if (!pass) {
            arena_reserve(&scorer->arena, scorer->dev, "scoring", plan.peak);
        } else {
            device_copy_out(scorer->dev, raw, device_raw, (size_t)S * sizeof *raw);
            device_copy_out(scorer->dev, logprob, device_log, (size_t)S * sizeof *logprob);
            device_copy_out(scorer->dev, greedy, device_greedy, (size_t)R * sizeof *greedy);
        }
    }
    scorer->forwards += (uint64_t)scorer->batch.B;
}

// Scores the pairs of one pass, which the store does not know, and puts them there.
// out_raw, out_logprob: (n,C).
static void score_pass(Scorer *scorer, float *out_raw, float *out_logprob, const ScoreKey *keys,
                       Dataset *queries, Dataset *corpus, const Pair *pairs, int n) {
    const LabelSet *labels = scorer->labels;
    Picks picks = {0};
    int *first_row = xmalloc((size_t)n, sizeof *first_row);
    reader_batch_clear(&scorer->batch);
    for (int i = 0; i < n; i++) {
        const Record *query = &queries->records[pairs[i].query];
        PromptInput input = {.question = query->question, .caption = ""};
        // Two images a pair: those of this pass must outlive the building of its batch.
        input.query_image = image_features(scorer, queries, pairs[i].query, 2 * i + 1);
        if (pairs[i].passage >= 0) {
            input.passage_image = image_features(scorer, corpus, pairs[i].passage, 2 * i + 2);
            input.caption = corpus->records[pairs[i].passage].text;
        }
        first_row[i] = scorer->batch.R;
        add_pair(scorer, &picks, &input);
    }
    float *raw = xmalloc((size_t)picks.count, sizeof *raw);
    float *logprob = xmalloc((size_t)picks.count, sizeof *logprob);
    int32_t *greedy = xmalloc((size_t)scorer->batch.R, sizeof *greedy);
    run_batch(scorer, &picks, raw, logprob, greedy);
    for (int i = 0, s = 0; i < n; i++) {
        for (int c = 0; c < labels->C; c++) {
            out_raw[i * labels->C + c] = raw[s];
            float sum = 0;
            for (int k = 0; k < labels->counts[c]; k++) {
                sum += logprob[s++];
            }
            out_logprob[i * labels->C + c] = sum;
        }
        const Error error = score_store_put(scorer->store, keys[i], out_raw + i * labels->C,
                                            out_logprob + i * labels->C, greedy[first_row[i]]);
        error_die(scorer->store->path ? scorer->store->path : "score store", error);
    }
    free(raw);
    free(logprob);
    free(greedy);
    free(picks.row);
    free(picks.token);
    free(first_row);
}

static ScoreKey pair_key(const Scorer *scorer, Dataset *queries, Dataset *corpus, Pair pair) {
    const Record *query = &queries->records[pair.query];
    const uint64_t q = xxh64(query->question, strlen(query->question),
                             dataset_image_hash(queries, pair.query));
    uint64_t p = 0; // closed book
    if (pair.passage >= 0) {
        const Record *passage = &corpus->records[pair.passage];
        p = xxh64(passage->text, strlen(passage->text), dataset_image_hash(corpus, pair.passage)) | 1;
    }
    return score_key(scorer->context, q, p);
}

void scorer_scores(Scorer *scorer, float *raw, float *logprob, Dataset *queries, Dataset *corpus,
                   const Pair *pairs, int n) {
    const int C = scorer->labels->C, most = scorer->prompts_per_pass;
    float *pass_raw = xmalloc((size_t)most * C, sizeof(float));
    float *pass_logprob = xmalloc((size_t)most * C, sizeof(float));
    float *known_raw = xmalloc((size_t)C, sizeof(float)), *known_log = xmalloc((size_t)C, sizeof(float));
    Pair *missing = xmalloc((size_t)most, sizeof *missing);
    ScoreKey *keys = xmalloc((size_t)most, sizeof *keys);
    int *place = xmalloc((size_t)most, sizeof *place), waiting = 0;
    scorer->pairs += (uint64_t)n;
    for (int i = 0; i <= n; i++) {
        if (waiting == most || (i == n && waiting > 0)) {
            score_pass(scorer, pass_raw, pass_logprob, keys, queries, corpus, missing, waiting);
            for (int k = 0; k < waiting; k++) {
                const size_t to = (size_t)place[k] * C, from = (size_t)k * C;
                if (raw) {
                    memcpy(raw + to, pass_raw + from, (size_t)C * sizeof *raw);
                }
                if (logprob) {
                    memcpy(logprob + to, pass_logprob + from, (size_t)C * sizeof *logprob);
                }
            }
            waiting = 0;
        }
        if (i == n) {
            break;
        }
        const ScoreKey key = pair_key(scorer, queries, corpus, pairs[i]);
        if (score_store_get(scorer->store, key, known_raw, known_log, NULL)) {
            if (raw) {
                memcpy(raw + (size_t)i * C, known_raw, (size_t)C * sizeof *raw);
            }
            if (logprob) {
                memcpy(logprob + (size_t)i * C, known_log, (size_t)C * sizeof *logprob);
            }
        } else {
            missing[waiting] = pairs[i];
            keys[waiting] = key;
            place[waiting++] = i;
        }
    }
    free(pass_raw);
    free(pass_logprob);
    free(known_raw);
    free(known_log);
    free(missing);
    free(keys);
    free(place);
}
