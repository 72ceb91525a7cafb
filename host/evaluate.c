// evaluate: see evaluate.h.
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "evidence.h"
#include "fusion.h"

const char *answer_name(Answer answer) {
    static const char *const names[ANSWER_COUNT] = {"mixture", "logit fusion", "image head",
                                                    "text head"};
    return names[answer];
}

FusionConfig fusion_default(void) {
    return (FusionConfig){.temperature = 0.02, .image_weight = 0.5};
}

static int arg_max(const double *p, int C) {
    int best = 0;
    for (int c = 1; c < C; c++) {
        best = p[c] > p[best] ? c : best;
    }
    return best;
}

static void softmax_in_place(double *x, int C) {
    const double largest = x[arg_max(x, C)];
    double sum = 0;
    for (int c = 0; c < C; c++) {
        x[c] = exp(x[c] - largest);
        sum += x[c];
    }
    for (int c = 0; c < C; c++) {
        x[c] /= sum;
    }
}

// ---- passages ----
int32_t *retrieve_new(const Index *index, const Dataset *queries,
                      const float *const vectors[INDEX_SIDES], int k, float **scores) {
    const int Q = queries->n;
    const size_t hits = (size_t)Q * k;
    int32_t *passages = xmalloc(2 * hits, sizeof *passages), *ids = xmalloc(hits, sizeof *ids);
    int32_t *group = xmalloc((size_t)Q, sizeof *group);
    float *all = xmalloc(2 * hits, sizeof *all), *found = xmalloc(hits, sizeof *found);
    for (int q = 0; q < Q; q++) {
        group[q] = queries->records[q].group_id;
    }
    for (int side = 0; side < INDEX_SIDES; side++) {
        index_search(index, (IndexSide)side, found, ids, vectors[side], group, Q, k);
        for (size_t i = 0; i < hits; i++) {
            const size_t q = i / (size_t)k, place = 2 * q * k + (size_t)side * k + i % (size_t)k;
            if (ids[i] < 0) {
                die(EXIT_BAD_DATA, "index: query '%s' finds fewer than %d passages outside its own "
                    "group; lower evaluate.k or evaluate.oracle_at", queries->records[q].id, k);
            }
            passages[place] = ids[i];
            all[place] = found[i];
        }
    }
    free(ids);
    free(group);
    free(found);
    if (scores) {
        *scores = all;
    } else {
        free(all);
    }
    return passages;
}

#define MOST_DRAWS 1000 // for one passage, before we believe that there are too few

int32_t *random_passages_new(const Dataset *queries, const Dataset *corpus, int P, uint64_t seed) {
    int32_t *out = xmalloc((size_t)queries->n * P, sizeof *out);
    for (int q = 0; q < queries->n; q++) {
        Rng rng = rng_new(seed, RNG_BASELINE, 0xffffffffu,
                          (uint32_t)q); // no training step is so late
        const int group = queries->records[q].group_id;
        int32_t *drawn = out + (size_t)q * P;
        int p = 0;
        for (int tries = 0; p < P; tries++) {
            if (tries == MOST_DRAWS * P) {
                die(EXIT_BAD_DATA,
                    "corpus: fewer than %d passages outside the group of query '%s'; "
                    "lower evaluate.k",
                    P, queries->records[q].id);
            }
            const int row = (int)rng_below(&rng, (uint32_t)corpus->n);
            bool is_good = group < 0 || corpus->records[row].group_id != group;
            for (int i = 0; i < p; i++) {
                is_good = is_good && drawn[i] != row;
            }
            if (is_good) {
                drawn[p++] = row;
            }
        }
    }
    return out;
}

// ---- answers ----
// Fills fused and answers of query q.
static void fuse(Evaluation *e, int q, const FusionConfig *config) {
    const int k = e->k, P = e->P, C = e->C;
    const double *probability = e->probability + (size_t)q * P * C;
    const float *scores = e->scores + (size_t)q * P, *raw = e->raw + (size_t)q * P * C;
    for (int a = 0; a < ANSWER_COUNT; a++) {
        double *out = e->fused + ((size_t)a * e->Q + q) * C;
        if (k == 0) { // closed book: there is nothing to fuse
            memcpy(out, probability, (size_t)C * sizeof *out);
        } else if (a == ANSWER_MIXTURE) {
            fusion_mixture(out, probability, scores, k, k, C, config->temperature,
                           config->image_weight);
        } else if (a == ANSWER_IMAGE) {
            fusion_mixture(out, probability, scores, k, 0, C, config->temperature, 1);
        } else if (a == ANSWER_TEXT) {
            fusion_mixture(out, probability + (size_t)k * C, scores + k, 0, k, C,
                           config->temperature, 0);
        } else {
            fusion_logits(out, raw, scores, k, k, C, config->is_max_norm);
            softmax_in_place(out, C); // keeps the order: the answer is that of the fused logits
        }
        e->answers[a * e->Q + q] = arg_max(out, C);
    }
}

Evaluation *evaluation_of_passages_new(Scorer *scorer, Dataset *queries, Dataset *corpus,
                                       const int32_t *passages, const float *scores, int k,
                                       const FusionConfig *fusion) {
    const int Q = queries->n, P = k > 0 ? 2 * k : 1, C = scorer->labels->C;
    const size_t places = (size_t)Q * P;
    Evaluation *e = xcalloc(1, sizeof *e);
    *e = (Evaluation){.Q = Q, .k = k, .P = P, .C = C};
    e->passages = xmalloc(places, sizeof *e->passages);
    e->scores = xcalloc(places, sizeof *e->scores);
    e->caption_length = xcalloc(places, sizeof *e->caption_length);
    e->raw = xmalloc(places * C, sizeof *e->raw);
    e->logprob = xmalloc(places * C, sizeof *e->logprob);
    e->probability = xmalloc(places * C, sizeof *e->probability);
    e->predicted = xmalloc(places, sizeof *e->predicted);
    e->fused = xmalloc((size_t)ANSWER_COUNT * Q * C, sizeof *e->fused);
    e->answers = xmalloc((size_t)ANSWER_COUNT * Q, sizeof *e->answers);
    Pair *pairs = xmalloc(places, sizeof *pairs);
    for (size_t i = 0; i < places; i++) {
        e->passages[i] = k > 0 ? passages[i] : -1;
        pairs[i] = (Pair){(int)(i / P), e->passages[i]};
        if (e->passages[i] >= 0) {
            const char *caption = corpus->records[e->passages[i]].text;
            e->caption_length[i] =
                tokenizer_encode(scorer->prompts->tokenizer, caption, strlen(caption), NULL, 0);
        }
    }
    if (scores) {
        memcpy(e->scores, scores, places * sizeof *scores);
    }
    scorer_scores(scorer, e->raw, e->logprob, queries, corpus, pairs, (int)places);
    for (size_t i = 0; i < places; i++) {
        evidence_softmax(e->probability + i * C, e->logprob + i * C, C);
        e->predicted[i] = arg_max(e->probability + i * C, C);
    }
    for (int q = 0; q < Q; q++) {
        fuse(e, q, fusion);
    }
    free(pairs);
    return e;
}

// Scores of the retrieved passages under both heads. A head's own hits keep the score they were
// found with; the rest are plain dot products with the unrounded query, close to what search would
// say.
static float *side_scores_new(const Index *index, const float *const vectors[INDEX_SIDES],
                              const Evaluation *e) {
    const int Q = e->Q, P = e->P, E = index->dim;
    float *out = xmalloc((size_t)INDEX_SIDES * Q * P, sizeof *out);
    float *rows = xmalloc((size_t)P * E, sizeof *rows);
    for (int side = 0; side < INDEX_SIDES; side++) {
        for (int q = 0; q < Q; q++) {
            const size_t first = (size_t)q * P;
            index_get_rows(index, (IndexSide)side, e->passages + first, P, rows);
            for (int p = 0; p < P; p++) {
                double sum = 0;
                for (int d = 0; d < E; d++) {
                    sum += (double)vectors[side][(size_t)q * E + d] * rows[(size_t)p * E + d];
                }
                const bool is_own = p / e->k == side;
                out[(size_t)side * Q * P + first + p] = is_own ? e->scores[first + p] : (float)sum;
            }
        }
    }
    free(rows);
    return out;
}

UtilityModel evaluation_fit_utility(const Evaluation *train, const Dataset *queries) {
    const int places = train->Q * train->P, C = train->C;
    CHECK(train->side_scores, "Q=%d passages without scores", train->Q);
    PassageView *views = passage_views_new(train->Q, train->k, C, train->side_scores,
                                           train->caption_length, train->probability);
    double *gold_score = xmalloc((size_t)places, sizeof *gold_score);
    int n = 0;
    for (int i = 0; i < places; i++) {
        const int gold = queries->records[i / train->P].label;
        if (gold >= 0) { // a probability that underflows must not become an infinite target
            gold_score[n] = log(fmax(views[i].probability[gold], 1e-12));
            views[n++] = views[i];
        }
    }
    const UtilityModel model = analysis_fit_utility(views, gold_score, n, 1);
    free(gold_score);
    free(views);
    return model;
}

Evaluation *evaluation_new(Scorer *scorer, const Index *index, Dataset *queries, Dataset *corpus,
                           const float *query_image, const float *query_text, int k,
                           const FusionConfig *fusion) {
    const float *const vectors[INDEX_SIDES] = {query_image, query_text};
    float *scores;
    int32_t *passages = retrieve_new(index, queries, vectors, k, &scores);
    Evaluation *e = evaluation_of_passages_new(scorer, queries, corpus, passages, scores, k,
                                               fusion);
    e->side_scores = side_scores_new(index, vectors, e);
    free(passages);
    free(scores);
    return e;
}

void evaluation_free(Evaluation *e) {
    if (e) {
        free(e->passages);
        free(e->scores);
        free(e->side_scores);
        free(e->caption_length);
        free(e->raw);
        free(e->logprob);
        free(e->probability);
        free(e->predicted);
        free(e->fused);
        free(e->answers);
        free(e);
    }
}

double evaluation_accuracy(const Evaluation *e, const Dataset *queries, Answer answer,
                           const bool *subset) {
    int count = 0, right = 0;
    for (int q = 0; q < e->Q; q++) {
        if (!subset || subset[q]) {
            count++;
            right += e->answers[answer * e->Q + q] == queries->records[q].label;
        }
    }
    return count ? (double)right / count : NAN;
}
