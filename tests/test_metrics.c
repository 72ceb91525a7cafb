// metrics and analysis against vectors from scikit-learn and SciPy (tools/vectors_metrics.py), and
// against properties that hold exactly.
#include "host/metrics.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "host/analysis.h"
#include "tests/check.h"

// ---- reading vectors ----
static json_t *vectors(const char *section) {
    static json_t *root;
    if (!root) {
        json_error_t error;
        root = json_load_file(check_fixture("vectors_metrics.json"), 0, &error);
        CHECK(root, "vectors_metrics.json: %s", error.text);
    }
    json_t *array = json_object_get(root, section);
    CHECK(json_array_size(array) > 0, "no vectors '%s'", section);
    return array;
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    CHECK(json_is_number(value), "no number '%s'", key);
    return json_number_value(value);
}

static double *numbers_new(const json_t *object, const char *key, int *n) {
    const json_t *array = json_object_get(object, key);
    *n = (int)json_array_size(array);
    double *out = xmalloc((size_t)*n, sizeof *out);
    for (int i = 0; i < *n; i++) {
        out[i] = json_number_value(json_array_get(array, (size_t)i));
    }
    return out;
}

static int *integers_new(const json_t *object, const char *key, int *n) {
    double *values = numbers_new(object, key, n);
    int *out = xmalloc((size_t)*n, sizeof *out);
    for (int i = 0; i < *n; i++) {
        out[i] = (int)values[i];
    }
    free(values);
    return out;
}

static void close_to(const char *what, double got, double want) {
    expect_within(what, &got, &want, 1, 1e-12 * fmax(1.0, fabs(want)));
}

// ---- metrics ----
TEST(metrics_against_scikit_learn) {
    json_t *v;
    size_t i;
    json_array_foreach(vectors("classify"), i, v) {
        if (CASE("classify %zu", i)) {
            int n, m;
            const int C = (int)number(v, "C");
            int *gold = integers_new(v, "gold", &n), *said = integers_new(v, "predicted", &n);
            int *confusion = integers_new(v, "confusion", &m);
            int *ours = xcalloc((size_t)m, sizeof *ours);
            const ClassMetrics got = metrics_classify(said, gold, n, C);
            close_to("accuracy", got.accuracy, number(v, "accuracy"));
            close_to("macro precision", got.macro_precision, number(v, "precision"));
            close_to("macro recall", got.macro_recall, number(v, "recall"));
            close_to("macro f1", got.macro_f1, number(v, "f1"));
            metrics_confusion(ours, said, gold, n, C);
            for (int k = 0; k < m; k++) {
                EXPECT(ours[k] == confusion[k], "cell %d is %d, want %d", k, ours[k], confusion[k]);
            }
            free(gold);
            free(said);
            free(confusion);
            free(ours);
        }
    }
    json_array_foreach(vectors("medmnist"), i, v) {
        if (CASE("medmnist %zu", i)) {
            int n, m;
            int *gold = integers_new(v, "gold", &n);
            double *probability = numbers_new(v, "probability", &m);
            const MedmnistMetrics got = metrics_medmnist(probability, gold, n, (int)number(v, "C"));
            close_to("auc", got.auc, number(v, "auc"));
            close_to("acc", got.acc, number(v, "acc"));
            free(gold);
            free(probability);
        }
    }
    json_array_foreach(vectors("multilabel"), i, v) {
        if (CASE("multilabel %zu", i)) {
            int n, m;
            int *gold = integers_new(v, "gold", &n);
            double *probability = numbers_new(v, "probability", &m);
            const MedmnistMetrics got =
                metrics_medmnist_multilabel(probability, (uint32_t *)gold, n, (int)number(v, "C"));
            close_to("auc", got.auc, number(v, "auc"));
            close_to("acc", got.acc, number(v, "acc"));
            free(gold);
            free(probability);
        }
    }
}

TEST(metrics_undefined_is_nan) {
    const double score[2] = {0.1, 0.9};
    const bool all[2] = {true, true};
    EXPECT(isnan(metrics_auc(score, all, 2)), "one class only");
    EXPECT(isnan(metrics_classify(NULL, NULL, 0, 3).accuracy), "no rows");
    const int predicted[2] = {-1, 1}, gold[2] = {0, 1};
    EXPECT(metrics_classify(predicted, gold, 2, 2).accuracy == 0.5, "-1 is never right");
}

TEST(metrics_vqa_closed_questions) {
    const char *gold[] = {"Yes", "no ", "nodule", "NO"};
    const char *answer[] = {"yes", "yes", "nodule", " no"};
    int closed = 0;
    const double accuracy = metrics_vqa_closed(answer, gold, 4, &closed);
    EXPECT(closed == 3, "closed=%d: 'nodule' is an open answer", closed);
    close_to("accuracy", accuracy, 2.0 / 3);
    const uint32_t a[] = {3, 5, 0}, b[] = {3, 4, 0};
    close_to("subset accuracy", metrics_subset_accuracy(a, b, 3), 2.0 / 3);
}

// ---- analysis ----
TEST(analysis_mcnemar_against_scipy) {
    json_t *v;
    size_t i;
    json_array_foreach(vectors("mcnemar"), i, v) {
        const double got = analysis_mcnemar((int)number(v, "b"), (int)number(v, "c"));
        const double want = number(v, "p");
        // Terms come from logarithms of factorials, each good to about 1e-13 relative.
        expect_within("p", &got, &want, 1, 1e-10 * want);
    }
}

TEST(analysis_ridge_against_scikit_learn) {
    json_t *v;
    size_t i;
    json_array_foreach(vectors("ridge"), i, v) {
        int n, m;
        double *x = numbers_new(v, "features", &m), *g = numbers_new(v, "g", &n);
        double *want = numbers_new(v, "prediction", &n);
        PassageView *views = xcalloc((size_t)n, sizeof *views);
        for (int k = 0; k < n; k++) {
            const double *of = x + 4 * k;
            views[k] = (PassageView){.image_score = of[0], .text_score = of[1],
                                     .rank = (int)of[2], .caption_length = (int)of[3]};
        }
        const UtilityModel model = analysis_fit_utility(views, g, n, number(v, "penalty"));
        for (int k = 0; k < n; k++) {
            const double got = analysis_utility(&model, &views[k]);
            expect_within("prediction", &got, &want[k], 1, 1e-10);
        }
        free(x);
        free(g);
        free(want);
        free(views);
    }
}

TEST(analysis_oracle_and_inconsistent) {
    const int predicted[3 * 4] = {1, 1, 1, 1, 0, 1, 2, 0, 2, 2, 2, 1}, gold[3] = {1, 2, 0};
    bool inconsistent[3];
    analysis_inconsistent(inconsistent, predicted, 3, 4);
    EXPECT(!inconsistent[0] && inconsistent[1] && inconsistent[2], "flags");
    const double ones[] = {1.0 / 3, 2.0 / 3, 0.5, 5.0 / 12};
    const double got[] = {analysis_oracle(predicted, gold, NULL, 3, 4, 1),
                          analysis_oracle(predicted, gold, NULL, 3, 4, 4),
                          analysis_oracle(predicted, gold, inconsistent, 3, 4, 4),
                          analysis_floor(predicted, gold, NULL, 3, 4)};
    expect_within("oracle@1, @4, inconsistent, floor", got, ones, 4, 1e-15);
    const bool none[3] = {false, false, false};
    EXPECT(isnan(analysis_oracle(predicted, gold, none, 3, 4, 4)), "an empty subset has no oracle");
}

TEST(analysis_rerankers_choose) {
    // Passages 1 and 2 agree on class 0; passage 3 is surest; passage 0 has the best score.
    const double p[4][3] = {{0.3, 0.4, 0.3}, {0.5, 0.3, 0.2}, {0.45, 0.1, 0.45}, {0.02, 0.08, 0.9}};
    PassageView views[4];
    for (int i = 0; i < 4; i++) {
        views[i] = (PassageView){.score = 0.9 - 0.1 * i, .rank = i, .caption_length = 10 + i,
                                 .probability = p[i]};
    }
    const UtilityModel longest = {.scale = {1, 1, 1, 1}, .weight = {0, 0, 0, 1}};
    const int want[RERANK_COUNT] = {0, 3, 3, 1, 3};
    for (int r = 0; r < RERANK_COUNT; r++) {
        int choice = -1;
        analysis_rerank(&choice, (Reranker)r, views, &longest, 1, 4, 3);
        EXPECT(choice == want[r], "%s chose %d, want %d", analysis_reranker_name((Reranker)r),
               choice, want[r]);
    }
}

TEST(analysis_bootstrap_properties) {
    enum { N = 300 };
    double difference[N];
    int stratum[N];
    Rng rng = check_rng(1);
    double sum = 0, squares = 0;
    for (int i = 0; i < N; i++) {
        stratum[i] = i % 3;
        difference[i] = (rng_uniform(&rng) < 0.5) - (rng_uniform(&rng) < 0.2);
        sum += difference[i];
    }
    for (int i = 0; i < N; i++) {
        squares += (difference[i] - sum / N) * (difference[i] - sum / N);
    }
    const Bootstrap got = analysis_bootstrap_mean(difference, stratum, N, 3, 10000, 5);
    const double error = sqrt(squares / N / N); // of the mean
    close_to("mean", got.mean, sum / N);
    EXPECT(fabs((got.high - got.low) / (2 * 1.96 * error) - 1) < 0.1, "interval [%g, %g], error %g",
           got.low, got.high, error);
    EXPECT(got.p < 0.001, "p = %g for a mean of %g", got.p, got.mean);
    for (int i = 0; i < N; i++) {
        difference[i] = i % 2 ? 1 : -1; // no effect at all, in no stratum
    }
    const Bootstrap none = analysis_bootstrap_mean(difference, stratum, N, 3, 2000, 5);
    EXPECT(none.p > 0.5, "p = %g without an effect", none.p);
    double mean, sd;
    analysis_mean_sd(&mean, &sd, (const double[]){1, 2, 4}, 3);
    close_to("mean", mean, 7.0 / 3);
    close_to("sd", sd, sqrt(7.0 / 3));
}
