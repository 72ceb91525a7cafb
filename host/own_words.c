// own_words: see own_words.h.
#include "own_words.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "evidence.h"
#include "fusion.h"

// ---- formulas ----
// What the original looks for where a class has this name.
static const char *pattern_of(const char *name) { return strcmp(name, "Yes") == 0 ? "Ye" : name; }

static bool are_small_yes_no(const char *const *classes, int C) {
    bool has_yes = false, has_no = false;
    for (int c = 0; c < C; c++) {
        has_yes |= strcmp(classes[c], "yes") == 0;
        has_no |= strcmp(classes[c], "no") == 0;
    }
    return has_yes && has_no;
}

static int parse_anywhere(const char *text, const char *const *classes, int C) {
    char *copy = xstrdup(text);
    const bool is_yes_no = are_small_yes_no(classes, C);
    for (char *c = copy; is_yes_no && *c; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
    int found = -1, first = 0;
    for (int c = 0; is_yes_no && c < C; c++) { // "no" before "yes", wherever it stands
        first = strcmp(classes[c], "no") == 0 ? c : first;
    }
    for (int i = 0; i < C && found < 0; i++) {
        const int c = (first + i) % C;
        found = strstr(copy, pattern_of(classes[c])) ? c : -1;
    }
    free(copy);
    return found;
}

int own_parse(const char *text, const char *const *classes, int C, bool is_exact) {
    if (is_exact) {
        return parse_anywhere(text, classes, C);
    }
    text += strspn(text, " \t\r\n");
    int found = -1;
    size_t longest = 0;
    for (int c = 0; c < C; c++) {
        const size_t length = strlen(classes[c]);
        if (length > longest && strncmp(text, classes[c], length) == 0) {
            found = c;
            longest = length;
        }
    }
    return found;
}

int own_ids(int32_t *out, const int32_t *prompt, int T, const int32_t *answer, int count,
            bool is_tail) {
    CHECK(count >= 0 && count <= OWN_TOKENS, "count=%d", count);
    const int room = OWN_TOKENS - count, before = !is_tail ? 0 : room < T ? room : T;
    memcpy(out, prompt + T - before, (size_t)before * sizeof *out);
    memcpy(out + before, answer, (size_t)count * sizeof *out);
    return before + count;
}

// ---- an evaluation ----
// The first token of every label, and where the tokenizer puts one before every text, that one.
static void first_tokens(int32_t *out, const Scorer *scorer) {
    const Tokenizer *tokenizer = scorer->prompts->tokenizer;
    const LabelSet *labels = scorer->labels;
    for (int c = 0; c < labels->C; c++) {
        out[c] = tokenizer->before_count ? tokenizer->before[0]
                                         : labels->tokens[(size_t)c * labels->max_tokens];
    }
}

// What query q says with each of its passages.
static void take_query(OwnWords *words, int q, const Scorer *scorer, const Generated *said,
                       const char *const *classes, const OwnConfig *config) {
    const ReaderBatch *batch = &scorer->batch;
    const int P = words->P, C = words->C, V = said->V;
    int32_t ids[OWN_TOKENS], *first = xmalloc((size_t)C, sizeof *first);
    first_tokens(first, scorer);
    for (int p = 0; p < P; p++) {
        const int32_t *prompt = batch->ids + batch->cu_seqlens[p],
                      *answer = said->ids + (size_t)p * said->max_tokens;
        const size_t i = (size_t)q * P + p;
        // The original decodes what padding follows too, of which no text comes.
        const int rows = said->rows[p], count = config->is_tail ? rows : said->counts[p];
        const int n = own_ids(ids, prompt, batch->cu_seqlens[p + 1] - batch->cu_seqlens[p], answer,
                              count, config->is_tail);
        words->texts[i] = tokenizer_text_new(scorer->prompts->tokenizer, ids, n, DECODE_TEXT);
        words->parsed[i] = own_parse(words->texts[i], classes, C, config->is_parser);
        const float *scores = said->scores + (size_t)p * said->max_tokens * V;
        for (int c = 0; words->saved && c < C; c++) {
            words->saved[i * C + c] = evidence_saved_logit(scores, rows, V, first[c]);
        }
    }
    free(first);
}

// The fused text of query q.
static void fuse_query(OwnWords *words, int q, const Scorer *scorer, const Generated *said,
                       const Evaluation *e, const char *const *classes, const OwnConfig *config) {
    const int P = words->P, V = said->V, rows = said->rows[0]; // padded: the same for all
    const float **scores = xmalloc((size_t)P, sizeof *scores);
    for (int p = 0; p < P; p++) {
        scores[p] = said->scores + (size_t)p * said->max_tokens * V;
    }
    int32_t ids[OWN_TOKENS];
    const int k = P == 1 ? 1 : P / 2;
    fusion_tokens(ids, scores, rows, V, e->scores + (size_t)q * P, k, P - k, config->is_max_norm);
    words->fused_texts[q] = tokenizer_text_new(scorer->prompts->tokenizer, ids, rows, DECODE_TEXT);
    words->fused[q] = own_parse(words->fused_texts[q], classes, words->C, config->is_parser);
    free(scores);
}

OwnWords *own_words_new(Scorer *scorer, const Evaluation *e, Dataset *queries, Dataset *corpus,
                        const OwnConfig *config) {
    const int Q = e->Q, P = e->P, C = e->C;
    const size_t places = (size_t)Q * P;
    OwnWords *words = xmalloc(1, sizeof *words);
    *words = (OwnWords){.Q = Q, .P = P, .C = C, .texts = xcalloc(places, sizeof(char *)),
                        .parsed = xmalloc(places, sizeof(int)),
                        .fused = xmalloc((size_t)Q, sizeof(int))};
    words->saved = config->has_saved_logits ? xmalloc(places * C, sizeof(double)) : NULL;
    words->fused_texts = config->is_fusion ? xcalloc((size_t)Q, sizeof(char *)) : NULL;
    const GenerateConfig generate = {.choice = config->choice, .max_tokens = OWN_TOKENS,
                                     .pad = config->pad, .keeps_scores = true};
    const char *const *classes = (const char *const *)queries->class_names;
    Pair *pairs = xmalloc((size_t)P, sizeof *pairs);
    for (int q = 0; q < Q; q++) {
        for (int p = 0; p < P; p++) {
            pairs[p] = (Pair){q, e->passages[(size_t)q * P + p]};
        }
        Generated said = scorer_generate_new(scorer, queries, corpus, pairs, P, &generate);
        take_query(words, q, scorer, &said, classes, config);
        if (words->fused_texts) {
            fuse_query(words, q, scorer, &said, e, classes, config);
        }
        generated_free(&said);
    }
    free(pairs);
    return words;
}

void own_words_free(OwnWords *words) {
    if (words) {
        for (int i = 0; i < words->Q * words->P; i++) {
            free(words->texts[i]);
        }
        for (int q = 0; words->fused_texts && q < words->Q; q++) {
            free(words->fused_texts[q]);
        }
        free(words->texts);
        free(words->fused_texts);
        free(words->parsed);
        free(words->fused);
        free(words->saved);
        free(words);
    }
}

double own_words_accuracy(const OwnWords *words, const Dataset *queries, bool is_fused) {
    if (is_fused && !words->fused_texts) {
        return NAN;
    }
    const int each = is_fused ? 1 : words->P, count = words->Q * each;
    int right = 0;
    for (int i = 0; i < count; i++) {
        const int said = is_fused ? words->fused[i] : words->parsed[i];
        right += said >= 0 && said == queries->records[i / each].label;
    }
    return (double)right / count;
}
