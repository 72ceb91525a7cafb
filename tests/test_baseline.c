// Baselines: the majority's ties, the neighbours against a brute double loop, and their way into
// the results of a run.
#define _POSIX_C_SOURCE 200809L
#include "host/baseline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/results.h"
#include "tests/check.h"

static Dataset *labelled(const int *labels, int n, int C) {
    static const char *const names[] = {"a", "b", "c", "d"};
    Dataset *ds = dataset_new();
    dataset_set_classes(ds, names, C);
    for (int i = 0; i < n; i++) {
        Record record = record_empty();
        record.label = labels[i];
        dataset_add(ds, &record);
    }
    return ds;
}

// ---- majority ----
TEST(baseline_majority_class) {
    static const struct {
        int labels[6], n, want;
        double share[3];
    } cases[] = {
        {{2, 1, 2, 0, 2, -1}, 6, 2, {0.2, 0.2, 0.6}},
        {{2, 1, 1, 2, -1, -1}, 6, 1, {0, 0.5, 0.5}}, // a tie: the lower class
        {{-1, -1}, 2, 0, {1 / 3.0, 1 / 3.0, 1 / 3.0}},
        {{0}, 0, 0, {1 / 3.0, 1 / 3.0, 1 / 3.0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Dataset *train = labelled(cases[i].labels, cases[i].n, 3);
        int answers[4] = {-7, -7, -7, -7};
        double probability[12];
        for (int j = 0; j < 12; j++) {
            probability[j] = NAN;
        }
        baseline_majority(answers, probability, train, 4, 3);
        for (int q = 0; q < 4; q++) {
            EXPECT(answers[q] == cases[i].want, "case %zu, query %d: class %d", i, q, answers[q]);
            expect_within("share", probability + 3 * q, cases[i].share, 3, 1e-15);
        }
        dataset_free(train);
    }
}

// ---- neighbours ----
typedef struct {
    double cosine;
    int row;
} Ranked;

static int nearer(const void *a, const void *b) {
    const Ranked *x = a, *y = b;
    return x->cosine != y->cosine ? (x->cosine < y->cosine) - (x->cosine > y->cosine)
                                  : x->row - y->row;
}

// By sorting everything, and by asking of every class how near its nearest vote is.
static int brute(double *share, const float *train, const int *labels, int n, const float *query,
                 int E, int C, int k) {
    Ranked *all = xmalloc((size_t)n, sizeof *all);
    int m = 0, best = -1, best_first = 0;
    for (int i = 0; i < n; i++) {
        double ab = 0, aa = 0, bb = 0;
        for (int e = 0; e < E; e++) {
            const double a = query[e], b = train[i * E + e];
            ab += a * b;
            aa += a * a;
            bb += b * b;
        }
        if (labels[i] >= 0) {
            all[m++] = (Ranked){aa > 0 && bb > 0 ? ab / sqrt(aa) / sqrt(bb) : 0, i};
        }
    }
    qsort(all, (size_t)m, sizeof *all, nearer);
    k = k < m ? k : m;
    double most = 0;
    for (int c = 0; c < C; c++) {
        int votes = 0, first = -1;
        for (int i = 0; i < k; i++) {
            if (labels[all[i].row] == c) {
                votes++;
                first = first < 0 ? i : first;
            }
        }
        share[c] = (double)votes / k;
        if (votes > most || (votes == most && votes > 0 && first < best_first)) {
            most = votes;
            best = c;
            best_first = first;
        }
    }
    free(all);
    return best;
}

TEST(baseline_neighbours_against_brute_force) {
    enum { N = 61, Q = 40, C = 4 };
    static const int widths[] = {1, 3, 16}, counts[] = {1, 2, 5, 100};
    for (int w = 0; w < 3; w++) {
        for (int j = 0; j < 4; j++) {
            if (!CASE("E=%d k=%d", widths[w], counts[j])) {
                continue;
            }
            const int E = widths[w], k = counts[j];
            Rng rng = check_rng((uint32_t)(w * 10 + j));
            float train[N * 16], queries[Q * 16];
            int labels[N], answers[Q];
            double probability[Q * C], want[C];
            for (int i = 0; i < N * E; i++) {
                train[i] = (float)rng_normal(&rng);
            }
            for (int i = 0; i < N; i++) {
                labels[i] = (int)rng_below(&rng, C + 1) - 1;
            }
            for (int i = 0; i < Q * E; i++) {
                queries[i] = (float)rng_normal(&rng);
            }
            if (E == 1) { // cosines are 1 and -1 but for rounding: make the lengths exact
                for (int i = 0; i < N; i++) {
                    train[i] = train[i] < 0 ? -2.0f : 4.0f;
                }
                for (int i = 0; i < Q; i++) {
                    queries[i] = i % 8 == 0 ? 0 : queries[i] < 0 ? -1.0f : 0.5f;
                }
            }
            baseline_neighbours(answers, probability, train, labels, N, queries, Q, E, C, k);
            for (int q = 0; q < Q; q++) {
                const int gold = brute(want, train, labels, N, queries + q * E, E, C, k);
                EXPECT(answers[q] == gold, "query %d: class %d, want %d", q, answers[q], gold);
                expect_within("share", probability + q * C, want, C, 1e-12);
            }
        }
    }
}

// Two votes each for classes 1 and 0: the nearest row is of class 1, although it is the last one
// and the longest is of class 0.
TEST(baseline_neighbours_ties) {
    const float train[] = {8, 6, 3, 4, 0, 9, 4, 3, 1, 0.25f};
    const int labels[] = {0, 0, 2, 1, 1};
    const float query[] = {2, 0.25f};
    int answer;
    double share[3];
    const double half[] = {0.5, 0.5, 0};
    baseline_neighbours(&answer, share, train, labels, 5, query, 1, 2, 3, 4);
    EXPECT(answer == 1, "class %d", answer);
    expect_within("share", share, half, 3, 1e-15);
    const int swapped[] = {1, 1, 2, 0, 0};
    baseline_neighbours(&answer, share, train, swapped, 5, query, 1, 2, 3, 4);
    EXPECT(answer == 0, "class %d", answer);
}

// ---- results ----
TEST(baseline_in_results) {
    const int gold[] = {0, 1, 2}, answers[] = {2, 1, 1};
    const double probability[] = {0.25, 0.25, 0.5, 0, 1, 0, 0.125, 0.875, 0};
    Dataset *queries = labelled(gold, 3, 3);
    RunResult *result = run_result_new("test", 1, 2, queries), *back = NULL;
    run_result_add_answers(result, "neighbours", answers, probability);
    const char *path = file_join_new(check_tmpdir(), "results.json");
    Error error = run_result_write(result, path);
    EXPECT(error.code == EXIT_OK, "write: %s", error.text);
    error = run_result_read_new(&back, path);
    EXPECT(error.code == EXIT_OK, "read: %s", error.text);
    const SystemResult *system = back ? run_result_find(back, "neighbours") : NULL;
    EXPECT(system && system->P == 1, "not there");
    for (int a = 0; system && a < ANSWER_COUNT; a++) {
        EXPECT(memcmp(system->answers[a], answers, sizeof answers) == 0, "%s",
               answer_name((Answer)a));
    }
    for (int q = 0; system && q < 3; q++) {
        EXPECT(system->passages[q] == -1 && system->predicted[q] == answers[q], "query %d", q);
    }
    if (system) {
        expect_within("probability", system->probability, probability, 9, 0);
    }
    run_result_free(back);
    run_result_free(result);
    dataset_free(queries);
}
