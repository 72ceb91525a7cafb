// test_own_words: answers in the reader's own words, against the reader run directly: the label
// logits of exact.greedy_prefix and exact.rep_penalty, texts, fused texts and saved logits of an
// evaluation, and what jomed evaluate writes of them.
#include "host/own_words.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/json.h"
#include "tests/program.h"
#include "tests/reader_check.h"
#include "tests/world.h"

enum { QUERIES = 3, CORPUS = 4, MOST = 16 };

static World *world_of(bool has_long_labels) {
    return world_new(
        &(WorldConfig){.queries = QUERIES, .corpus = CORPUS, .has_long_labels = has_long_labels});
}

// ---- the reader, directly ----
// The greedy answer of `steps` tokens to a prompt without passage, by a pass over all for each
// token: rows of scores (steps,V), penalized. Caller frees. ids: (steps)
static float *direct_new(World *w, int query, int steps, double penalty, int32_t *ids) {
    const VisionConfig *vision = &w->reader->config.vision;
    const int V = w->reader->config.V;
    PromptInput input = {.question = w->queries->records[query].question, .caption = ""};
    input.query_image = reader_image_of_row(&w->reader_processor, vision, w->queries, query);
    float *out = xmalloc((size_t)steps * V, sizeof *out);
    for (int t = 0; t < steps; t++) {
        ReaderBatch batch = reader_batch_new();
        ids[t] = 0; // behind the answer so far; prompt_add does not feed the last one
        prompt_add(&w->prompts, &batch, &input, ids, t + 1);
        float *logits = reader_logits_new(w->reader, &batch), *row = out + (size_t)t * V;
        memcpy(row, logits + (size_t)t * V, (size_t)V * sizeof *row);
        free(logits);
        bool *is_seen = xcalloc((size_t)V, sizeof *is_seen);
        for (int n = 0; n < batch.N; n++) { // everything before the token
            float *score = &row[batch.ids[n]];
            if (!is_seen[batch.ids[n]]) {
                *score = *score < 0 ? *score * (float)penalty : *score / (float)penalty;
            }
            is_seen[batch.ids[n]] = true;
        }
        int best = -1;
        for (int v = 0; v < V; v++) {
            best = v != w->prompts.image && (best < 0 || row[v] > row[best]) ? v : best;
        }
        ids[t] = best;
        free(is_seen);
        reader_batch_free(&batch);
    }
    free((void *)(uintptr_t)input.query_image.pixels);
    return out;
}

static void expect_own_logits(bool is_greedy_prefix, double penalty, bool has_long_labels) {
    World *w = world_of(has_long_labels);
    char *question = xformat_new("%s or %s", w->queries->class_names[0],
                                 w->queries->class_names[1]); // what a penalty changes
    for (int q = 0; q < QUERIES; q++) {
        w->queries->records[q].question = question;
    }
    Scorer scorer = world_scorer(w), plain = scorer;
    scorer_set_own(&scorer, is_greedy_prefix, penalty);
    EXPECT(scorer.context != plain.context, "the store would mix two kinds of %s", "scores");
    const Pair pairs[QUERIES] = {{0, -1}, {1, -1}, {2, -1}};
    float raw[QUERIES * MOST];
    const int C = w->labels.C, V = w->reader->config.V, most = w->labels.max_tokens;
    int penalized = 0;
    scorer_scores(&scorer, raw, NULL, w->queries, w->corpus, pairs, QUERIES);
    for (int q = 0; q < QUERIES; q++) {
        int32_t ids[MOST];
        float *scores = direct_new(w, q, most, penalty, ids),
              *free_scores = direct_new(w, q, 1, 1, ids);
        for (int c = 0; c < C; c++) {
            const int32_t first = w->labels.tokens[c * most];
            penalized += scores[first] != free_scores[first];
            const int count = is_greedy_prefix ? w->labels.counts[c] : 1;
            double want = 0;
            for (int t = 0; t < count; t++) {
                want += (double)scores[t * V + w->labels.tokens[c * most + t]] / count;
            }
            EXPECT(fabs((double)raw[q * C + c] - want) <= 4 * 0x1p-24 * (fabs(want) + 1),
                   "query %d label %d: %.9g, not %.9g", q, c, (double)raw[q * C + c], want);
        }
        free(scores);
        free(free_scores);
    }
    EXPECT((penalized > 0) == (penalty != 1), "%d label logits are penalized", penalized);
    scorer_free(&scorer);
    world_free(w);
    free(question);
}

// ---- an evaluation ----
static OwnConfig all_switches(void) {
    return (OwnConfig){.is_parser = true, .is_fusion = true, .has_saved_logits = true,
                       .choice = choice_greedy(), .pad = 1};
}

// Without passages: one answer, whose fusion is itself.
static void expect_closed_book(bool has_begin) {
    World *w = world_of(true);
    w->tokenizer->before_count = has_begin; // a token before every text: all labels begin with it
    Scorer scorer = world_scorer(w);
    const FusionConfig fusion = fusion_default();
    const OwnConfig config = all_switches();
    Evaluation *e = evaluation_of_passages_new(&scorer, w->queries, w->corpus, NULL, NULL, 0,
                                               &fusion);
    OwnWords *own = own_words_new(&scorer, e, w->queries, w->corpus, &config);
    for (int q = 0; q < QUERIES; q++) {
        int32_t ids[OWN_TOKENS];
        float *scores = direct_new(w, q, OWN_TOKENS, 1, ids);
        char *text = tokenizer_decode_new(w->tokenizer, ids, OWN_TOKENS, DECODE_TEXT, NULL);
        EXPECT(strcmp(own->texts[q], text) == 0, "'%s', not '%s'", own->texts[q], text);
        EXPECT(strcmp(own->fused_texts[q], text) == 0, "fused '%s'", own->fused_texts[q]);
        EXPECT(own->parsed[q] == own->fused[q], "class %d, fused %d", own->parsed[q],
               own->fused[q]);
        for (int c = 0; c < e->C; c++) {
            const int32_t first = has_begin ? w->tokenizer->before[0]
                                            : w->labels.tokens[c * w->labels.max_tokens];
            double want = 0;
            for (int t = 0; t < OWN_TOKENS; t++) {
                want += (double)scores[t * w->reader->config.V + first];
            }
            EXPECT(fabs(own->saved[q * e->C + c] - want) <= 1e-12 * (fabs(want) + 1),
                   "label %d: %.9g, not %.9g", c, own->saved[q * e->C + c], want);
        }
        free(text);
        free(scores);
    }
    own_words_free(own);
    evaluation_free(e);
    scorer_free(&scorer);
    world_free(w);
}

// One passage found by the image head with a huge score: its text is the fused one.
static void expect_fusion(void) {
    World *w = world_of(false);
    Scorer scorer = world_scorer(w);
    const FusionConfig fusion = fusion_default();
    const OwnConfig config = all_switches();
    const int32_t passages[QUERIES * 2] = {0, 1, 2, 3, 1, 0};
    const float scores[QUERIES * 2] = {900, 0, 0, 900, 900, 0};
    Evaluation *e = evaluation_of_passages_new(&scorer, w->queries, w->corpus, passages, scores, 1,
                                               &fusion);
    OwnWords *own = own_words_new(&scorer, e, w->queries, w->corpus, &config);
    int right = 0, differing = 0;
    for (int q = 0; q < QUERIES; q++) {
        const char *heavy = own->texts[2 * q + (q == 1)], *light = own->texts[2 * q + (q != 1)];
        EXPECT(strcmp(own->fused_texts[q], heavy) == 0, "'%s', not '%s'", own->fused_texts[q],
               heavy);
        differing += strcmp(heavy, light) != 0;
        right += own->fused[q] >= 0 && own->fused[q] == w->queries->records[q].label;
    }
    EXPECT(differing > 0, "passages change %d of the texts", differing);
    EXPECT(own_words_accuracy(own, w->queries, true) == (double)right / QUERIES, "%d right", right);
    own_words_free(own);
    evaluation_free(e);
    scorer_free(&scorer);
    world_free(w);
}

// exact.tail_decode where one of two answers ends early: its padding counts among the last tokens.
static void expect_padded_tail(void) {
    World *w = world_of(false);
    Scorer scorer = world_scorer(w);
    const Pair pairs[2] = {{0, 0}, {0, 1}};
    const int32_t passages[QUERIES * 2] = {0, 1, 0, 1, 0, 1};
    GenerateConfig config = {.choice = choice_greedy(), .max_tokens = OWN_TOKENS, .pad = -1};
    Generated said = scorer_generate_new(&scorer, w->queries, w->corpus, pairs, 2, &config);
    const int32_t *a = said.ids, *b = said.ids + OWN_TOKENS, end = a[0];
    int longer = 0; // tokens of the other answer
    while (longer < OWN_TOKENS && b[longer++] != end) {
    }
    EXPECT(longer > 1, "both answers end after %d", longer);
    int32_t tail[OWN_TOKENS];
    for (int i = 0; i < OWN_TOKENS; i++) { // of prompt, one token, padding
        const int at = i - (OWN_TOKENS - longer);
        tail[i] = at < 0 ? scorer.batch.ids[scorer.batch.cu_seqlens[1] + at] : at == 0 ? end : 1;
    }
    char *want = tokenizer_decode_new(w->tokenizer, tail, OWN_TOKENS, DECODE_TEXT, NULL);
    const FusionConfig fusion = fusion_default();
    OwnConfig own_config = all_switches();
    own_config.is_tail = true;
    own_config.choice.ends[own_config.choice.end_count++] = end;
    Evaluation *e = evaluation_of_passages_new(&scorer, w->queries, w->corpus, passages, NULL, 1,
                                               &fusion);
    OwnWords *own = own_words_new(&scorer, e, w->queries, w->corpus, &own_config);
    EXPECT(strcmp(own->texts[0], want) == 0, "'%s', not '%s'", own->texts[0], want);
    own_words_free(own);
    evaluation_free(e);
    free(want);
    generated_free(&said);
    scorer_free(&scorer);
    world_free(w);
}

// ---- the program ----
static void expect_predictions(const char *name, const char *arguments, bool is_own,
                               bool is_saved) {
    program_must_run("evaluate c.yaml run.dir=%s " TOWERS " %s", name, arguments);
    char *file = xformat_new("%s/predictions/random-passages.jsonl", name),
         *text = world_text_new(file);
    json_t *row;
    error_die(file, json_parse_new(&row, text, strcspn(text, "\n")));
    const json_t *passage = json_array_get(json_object_get(row, "passages"), 0),
                 *logits = json_object_get(row, "logits"), *first = json_array_get(logits, 0);
    EXPECT(json_is_string(json_object_get(passage, "generation")) == is_own &&
               json_is_integer(json_object_get(passage, "parsed")) == is_own,
           "%s: %s", arguments, text);
    EXPECT(json_array_size(logits) == (is_saved ? 4u : 2u) && json_is_array(first) == is_saved,
           "%s: %s", arguments, text);
    char *results = xformat_new("%s/results.json", name), *all = world_text_new(results);
    EXPECT((strstr(all, "accuracy of the texts with each passage") != NULL) == is_own,
           "%s: facts", arguments);
    free(all);
    free(results);
    json_decref(row);
    free(text);
    free(file);
}

TEST(own_words) {
    check_time_limit(180);
    if (CASE("greedy prefix")) {
        expect_own_logits(true, 1, true);
    }
    if (CASE("greedy prefix, penalty")) {
        expect_own_logits(true, 1.4, true);
    }
    if (CASE("penalty")) {
        expect_own_logits(false, 1.4, false);
    }
    for (int has_begin = 0; has_begin < 2; has_begin++) {
        if (CASE("closed book%s", has_begin ? ", labels that begin alike" : "")) {
            expect_closed_book(has_begin);
        }
    }
    if (CASE("fusion")) {
        expect_fusion();
    }
    if (CASE("padded tail")) {
        expect_padded_tail();
    }
    if (CASE("evaluate")) {
        world_with_index();
        expect_predictions("plain", "", false, false);
        expect_predictions("parsed", "exact.parser=true", true, false);
        expect_predictions("all", "exact.all=true", true, true);
    }
}
