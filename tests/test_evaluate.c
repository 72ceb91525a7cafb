// test_evaluate: the wiring from retrieval to answers, every number by hand from the reader's
// scores.
#include "host/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/world.h"

enum { QUERIES = 5, CORPUS = 9, TOP = 2, PLACES = 2 * TOP, CLASSES = 3 };

static World *small_world(void) {
    return world_new(&(WorldConfig){.queries = QUERIES, .corpus = CORPUS, .has_long_labels = true});
}

static int largest(const double *p) {
    int best = 0;
    for (int c = 1; c < CLASSES; c++) {
        best = p[c] > p[best] ? c : best;
    }
    return best;
}

// softmax(s / T) over n places, first divided by their maximum when asked.
static void weigh(double *w, const float *s, int n, double T, bool is_max_norm) {
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        top = fmax(top, s[i]);
    }
    for (int i = 0; i < n; i++) {
        w[i] = exp(s[i] / (is_max_norm && top != 0 ? top : 1) / T);
        sum += w[i];
    }
    for (int i = 0; i < n; i++) {
        w[i] /= sum;
    }
}

// The four answers to query q from e's scores, raw logits and log-probabilities.
static void answer_by_hand(double out[ANSWER_COUNT][CLASSES], const Evaluation *e, int q,
                           const FusionConfig *fusion) {
    double w[PLACES], joint[PLACES], total = 0, scaled[PLACES];
    const float *s = e->scores + q * PLACES;
    weigh(w, s, TOP, fusion->temperature, false);
    weigh(w + TOP, s + TOP, TOP, fusion->temperature, false);
    for (int side = 0; side < 2; side++) { // one softmax at temperature 1 over all four
        double top = fmax(s[side * TOP], s[side * TOP + 1]);
        for (int p = 0; p < TOP; p++) {
            scaled[side * TOP + p] = s[side * TOP + p] /
                                     (fusion->is_max_norm && top != 0 ? top : 1);
        }
    }
    for (int p = 0; p < PLACES; p++) {
        joint[p] = exp(scaled[p]);
        total += joint[p];
    }
    memset(out, 0, ANSWER_COUNT * sizeof *out);
    for (int p = 0; p < PLACES; p++) {
        const float *logprob = e->logprob + (q * PLACES + p) * CLASSES;
        const double sum = exp(logprob[0]) + exp(logprob[1]) + exp(logprob[2]);
        const double image = fusion->image_weight;
        for (int c = 0; c < CLASSES; c++) {
            const double probability = exp(logprob[c]) / sum;
            out[ANSWER_MIXTURE][c] += (p < TOP ? image : 1 - image) * w[p] * probability;
            out[p < TOP ? ANSWER_IMAGE : ANSWER_TEXT][c] += w[p] * probability;
            out[ANSWER_LOGITS][c] += joint[p] / total * e->raw[(q * PLACES + p) * CLASSES + c];
        }
    }
    double sum = 0;
    for (int c = 0; c < CLASSES; c++) {
        sum += exp(out[ANSWER_LOGITS][c]);
    }
    for (int c = 0; c < CLASSES; c++) {
        out[ANSWER_LOGITS][c] = exp(out[ANSWER_LOGITS][c]) / sum;
    }
}

static void expect_answers(const Evaluation *e, const FusionConfig *fusion) {
    for (int q = 0; q < QUERIES; q++) {
        double want[ANSWER_COUNT][CLASSES];
        answer_by_hand(want, e, q, fusion);
        for (int a = 0; a < ANSWER_COUNT; a++) {
            const double *got = e->fused + ((size_t)a * QUERIES + q) * CLASSES;
            expect_within(answer_name((Answer)a), got, want[a], CLASSES, 1e-9);
            EXPECT(e->answers[a * QUERIES + q] == largest(want[a]), "%s, query %d",
                   answer_name((Answer)a), q);
        }
    }
}

// Passages and scores given: places belong to the right head and the right query.
TEST(evaluate_fusion) {
    World *w = small_world();
    Scorer scorer = world_scorer(w);
    const FusionConfig fusions[] = {{.temperature = 0.02, .image_weight = 0.5},
                                    {.temperature = 0.3, .image_weight = 0.2, .is_max_norm = true}};
    int32_t passages[QUERIES * PLACES];
    float scores[QUERIES * PLACES];
    Rng rng = check_rng(1);
    for (int i = 0; i < QUERIES * PLACES; i++) {
        passages[i] = (int32_t)rng_below(&rng, CORPUS);
        scores[i] = (float)(0.5 + 0.1 * rng_normal(&rng));
    }
    for (int k = 0; k < 3; k++) {
        if (!CASE("%s", k == 0 ? "default" : k == 1 ? "max_norm" : "equal scores")) {
            continue;
        }
        Evaluation *e = evaluation_of_passages_new(&scorer, w->queries, w->corpus, passages,
                                                   k < 2 ? scores : NULL, TOP, &fusions[k % 2]);
        EXPECT(e->Q == QUERIES && e->k == TOP && e->P == PLACES && e->C == CLASSES, "sizes");
        EXPECT(memcmp(e->passages, passages, sizeof passages) == 0, "passages");
        for (int i = 0; i < QUERIES * PLACES; i++) { // every place holds the scores of its own pair
            float logprob[CLASSES];
            const Pair pair = {i / PLACES, passages[i]};
            scorer_scores(&scorer, NULL, logprob, w->queries, w->corpus, &pair, 1);
            EXPECT(memcmp(logprob, e->logprob + i * CLASSES, sizeof logprob) == 0, "place %d", i);
            EXPECT(e->scores[i] == (k < 2 ? scores[i] : 0), "score %d", i);
            EXPECT(e->predicted[i] == largest(e->probability + i * CLASSES), "prediction %d", i);
            const char *text = w->corpus->records[passages[i]].text;
            EXPECT(e->caption_length[i] ==
                       tokenizer_encode(w->tokenizer, text, strlen(text), NULL, 0),
                   "caption of place %d", i);
        }
        expect_answers(e, &fusions[k % 2]);
        evaluation_free(e);
    }
    scorer_free(&scorer);
    world_free(w);
}

// The hits of one side for query q are its best rows outside the group, with their scores under
// either side.
static void expect_hits(const World *w, const Evaluation *e, const int32_t *group,
                        const float *vectors, int side, int q) {
    const int E = w->index->dim;
    double s[CORPUS];
    for (int i = 0; i < CORPUS; i++) {
        s[i] = 0;
        for (int d = 0; d < E; d++) {
            s[i] += (double)vectors[q * E + d] * w->rows[side][i * E + d];
        }
    }
    for (int p = 0; p < TOP; p++) {
        const int place = q * PLACES + side * TOP + p, found = e->passages[place];
        int better = 0;
        for (int i = 0; i < CORPUS; i++) {
            better += group[i] != w->queries->records[q].group_id && s[i] > s[found];
        }
        EXPECT(group[found] != w->queries->records[q].group_id,
               "query %d meets its own group", q);
        EXPECT(better == p, "query %d, %s place %d: rank %d", q,
               index_side_name((IndexSide)side), p, better);
        EXPECT(fabs(e->scores[place] - s[found]) <= 1e-5, "score %g, not %g",
               (double)e->scores[place], s[found]);
        EXPECT(e->side_scores[side * QUERIES * PLACES + place] == e->scores[place],
               "own score");
    }
    for (int p = 0; p < PLACES; p++) { // and what this side says of the other's hits
        const float got = e->side_scores[(side * QUERIES + q) * PLACES + p];
        EXPECT(fabs(got - s[e->passages[q * PLACES + p]]) <= 1e-5,
               "side score %d of query %d", p, q);
    }
}

// Each side is searched with its own query vector, and the own group is left out.
TEST(evaluate_retrieval) {
    World *w = small_world();
    Scorer scorer = world_scorer(w);
    const int E = w->index->dim;
    const FusionConfig fusion = fusion_default();
    float *vectors[INDEX_SIDES];
    int32_t group[CORPUS];
    Rng rng = check_rng(2);
    for (int side = 0; side < INDEX_SIDES; side++) {
        vectors[side] = xmalloc((size_t)QUERIES * E, sizeof(float));
        for (int i = 0; i < QUERIES * E; i++) {
            vectors[side][i] = (float)rng_normal(&rng);
        }
    }
    for (int i = 0; i < CORPUS; i++) {
        group[i] = i % 3;
    }
    index_set_groups(w->index, group);
    for (int q = 0; q < QUERIES; q++) {
        w->queries->records[q].group_id = q % 4 == 3 ? -1 : q % 4;
    }
    Evaluation *e = evaluation_new(&scorer, w->index, w->queries, w->corpus, vectors[INDEX_IMAGE],
                                   vectors[INDEX_TEXT], TOP, &fusion);
    for (int i = 0; i < QUERIES * INDEX_SIDES; i++) {
        expect_hits(w, e, group, vectors[i % INDEX_SIDES], i % INDEX_SIDES, i / INDEX_SIDES);
    }
    expect_answers(e, &fusion);
    evaluation_free(e);
    free(vectors[0]);
    free(vectors[1]);
    scorer_free(&scorer);
    world_free(w);
}

TEST(evaluate_closed_book) {
    World *w = small_world();
    Scorer scorer = world_scorer(w);
    const FusionConfig fusion = fusion_default();
    Evaluation *e = evaluation_of_passages_new(&scorer, w->queries, w->corpus, NULL, NULL, 0,
                                               &fusion);
    EXPECT(e->P == 1 && e->k == 0 && e->side_scores == NULL, "P=%d", e->P);
    int right = 0, right_even = 0;
    for (int q = 0; q < QUERIES; q++) {
        EXPECT(e->passages[q] == -1, "passage %d", e->passages[q]);
        for (int a = 0; a < ANSWER_COUNT; a++) {
            expect_exact("fused", e->fused + ((size_t)a * QUERIES + q) * CLASSES,
                         e->probability + q * CLASSES, CLASSES);
        }
        right += e->predicted[q] == w->queries->records[q].label;
        right_even += q % 2 == 0 && e->predicted[q] == w->queries->records[q].label;
    }
    const bool even[QUERIES] = {true, false, true, false, true}, none[QUERIES] = {false};
    EXPECT(evaluation_accuracy(e, w->queries, ANSWER_TEXT, NULL) == right / (double)QUERIES,
           "accuracy");
    EXPECT(evaluation_accuracy(e, w->queries, ANSWER_TEXT, even) == right_even / 3.0,
           "of a subset");
    EXPECT(isnan(evaluation_accuracy(e, w->queries, ANSWER_TEXT, none)), "of nothing");
    evaluation_free(e);
    scorer_free(&scorer);
    world_free(w);
}

// Random passages differ from each other, keep out of the query's group, and depend on the seed
// only.
static void draw_too_many(void *ctx) {
    const World *w = ctx;
    free(random_passages_new(w->queries, w->corpus, CORPUS + 1, 1));
}

TEST(evaluate_random_passages) {
    World *w = small_world();
    for (int i = 0; i < CORPUS; i++) {
        w->corpus->records[i].group_id = i % 2;
    }
    for (int q = 0; q < QUERIES; q++) {
        w->queries->records[q].group_id = q % 3 - 1;
    }
    int32_t *a = random_passages_new(w->queries, w->corpus, PLACES, 1);
    int32_t *b = random_passages_new(w->queries, w->corpus, PLACES, 1);
    int32_t *c = random_passages_new(w->queries, w->corpus, PLACES, 2);
    for (int i = 0; i < QUERIES * PLACES; i++) {
        const int group = w->queries->records[i / PLACES].group_id;
        EXPECT(a[i] >= 0 && a[i] < CORPUS && a[i] % 2 != group,
               "query %d of group %d meets passage %d", i / PLACES, group, a[i]);
        for (int j = i / PLACES * PLACES; j < i; j++) {
            EXPECT(a[j] != a[i], "places %d and %d hold the same passage", j, i);
        }
    }
    EXPECT(memcmp(a, b, QUERIES * PLACES * sizeof *a) == 0, "the same seed gives other passages");
    EXPECT(memcmp(a, c, QUERIES * PLACES * sizeof *a) != 0, "another seed gives the same passages");
    EXPECT(world_exit_code(draw_too_many, w) == EXIT_BAD_DATA, "more passages than there are");
    free(a);
    free(b);
    free(c);
    world_free(w);
}
