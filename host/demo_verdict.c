// demo_verdict: see demo_verdict.h.
#include "demo_verdict.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "demo.h"
#include "file.h"
#include "results.h"

#define LEAST_GAIN 0.10
#define LARGEST_P 0.01
#define RESAMPLES 10000
#define CLAIM_FAILED 1 // exit code

enum { COLUMNS = ANSWER_COUNT + 3 };
static const char *const column_names[COLUMNS] = {"mixture", "logits", "image head", "text head",
                                                  "mixture, inc.", "oracle", "oracle, inc."};

// One cell of the table for one seed.
static double cell(const RunResult *result, const SystemResult *system, int column) {
    if (column >= ANSWER_COUNT + 1) {
        return analysis_oracle(system->predicted, result->gold,
                               column == ANSWER_COUNT + 2 ? result->inconsistent : NULL, result->Q,
                               system->P, system->P);
    }
    const int *answers = system->answers[column < ANSWER_COUNT ? column : ANSWER_MIXTURE];
    return analysis_oracle(answers, result->gold, column < ANSWER_COUNT ? NULL : result->inconsistent,
                           result->Q, 1, 1);
}

static void print_table(RunResult *const *results, int count) {
    printf("\n%-26s", "accuracy, percent");
    for (int c = 0; c < COLUMNS; c++) {
        printf(" %14s", column_names[c]);
    }
    printf("\n");
    for (int s = 0; s < DEMO_SYSTEMS; s++) {
        const char *name = demo_system_name((DemoSystem)s);
        printf("%-26s", name);
        for (int c = 0; c < COLUMNS; c++) {
            double values[64], mean, sd;
            for (int i = 0; i < count; i++) {
                values[i] = 100 * cell(results[i], run_result_find(results[i], name), c);
            }
            analysis_mean_sd(&mean, &sd, values, count);
            if (s == DEMO_CLOSED_BOOK && c > 0 && c < ANSWER_COUNT) {
                printf(" %14s", "");
            } else if (count > 1) {
                printf("   %5.1f +- %4.1f", mean, sd);
            } else {
                printf(" %14.1f", mean);
            }
        }
        printf("\n");
    }
    double share[64], mean, sd;
    for (int i = 0; i < count; i++) {
        int inconsistent = 0;
        for (int q = 0; q < results[i]->Q; q++) {
            inconsistent += results[i]->inconsistent[q];
        }
        share[i] = 100.0 * inconsistent / results[i]->Q;
    }
    analysis_mean_sd(&mean, &sd, share, count);
    printf("inc.: the %.1f%% of queries whose passages lead RAG's reader to different answers; mean +- "
           "sample sd of %d seed%s\n", mean, count, count == 1 ? "" : "s");
}

// Mean over the seeds of one cell.
static double mean_cell(RunResult *const *results, int count, DemoSystem system, int column) {
    double sum = 0;
    for (int i = 0; i < count; i++) {
        sum += cell(results[i], run_result_find(results[i], demo_system_name(system)), column) / count;
    }
    return sum;
}

static void warn_unless(bool is_expected, const char *what, double value) {
    if (!is_expected) {
        LOG(WARN, "demo: %s: %.1f", what, 100 * value);
    }
}

static void print_warnings(RunResult *const *results, int count) {
    const double closed = mean_cell(results, count, DEMO_CLOSED_BOOK, ANSWER_MIXTURE);
    const double chance = mean_cell(results, count, DEMO_RANDOM, ANSWER_MIXTURE);
    const double rag = mean_cell(results, count, DEMO_RAG, ANSWER_MIXTURE);
    const double permuted = mean_cell(results, count, DEMO_PERMUTED, ANSWER_MIXTURE);
    double probe = 0;
    for (int i = 0; i < count; i++) {
        probe += facts_get(&results[i]->facts, "linear probe of the finding") / count;
    }
    warn_unless(closed <= 0.30, "closed book is expected at 30 or below", closed);
    warn_unless(chance <= closed + 0.05, "random passages are expected near closed book", chance);
    warn_unless(rag >= 0.30 && rag <= 0.65, "RAG is expected between 30 and 65", rag);
    warn_unless(probe >= 0.60 && probe <= 0.85, "the probe is expected between 60 and 85", probe);
    warn_unless(permuted <= rag + 0.05, "the permuted control is expected not above RAG", permuted);
}

// Joint against RAG over all queries of all seeds.
static Bootstrap gain(RunResult *const *results, int count, int *won, int *lost) {
    int n = 0, used = 0;
    for (int i = 0; i < count; i++) {
        n += results[i]->Q;
    }
    double *difference = xmalloc((size_t)n, sizeof *difference);
    int *stratum = xmalloc((size_t)n, sizeof *stratum);
    *won = *lost = 0;
    for (int i = 0; i < count; i++) {
        const RunResult *r = results[i];
        const int *joint = run_result_find(r, demo_system_name(DEMO_JOINT))->answers[ANSWER_MIXTURE];
        const int *rag = run_result_find(r, demo_system_name(DEMO_RAG))->answers[ANSWER_MIXTURE];
        for (int q = 0; q < r->Q; q++) {
            const int a = joint[q] == r->gold[q], b = rag[q] == r->gold[q];
            stratum[used] = i;
            difference[used++] = a - b;
            *won += a > b;
            *lost += a < b;
        }
    }
    const Bootstrap out = analysis_bootstrap_mean(difference, stratum, n, count, RESAMPLES, 1);
    free(difference);
    free(stratum);
    return out;
}

int demo_verdict(char *const *dirs, int count) {
    CHECK(count >= 1 && count <= 64, "count=%d", count);
    RunResult *results[64];
    for (int i = 0; i < count; i++) {
        char *path = file_join_new(dirs[i], "results.json");
        error_die(path, run_result_read_new(&results[i], path));
        for (int s = 0; s < DEMO_SYSTEMS; s++) {
            if (!run_result_find(results[i], demo_system_name((DemoSystem)s))) {
                die(EXIT_BAD_DATA, "%s: no system '%s'; run the demo again", path,
                    demo_system_name((DemoSystem)s));
            }
        }
        free(path);
    }
    print_table(results, count);
    print_warnings(results, count);
    int won, lost;
    const Bootstrap b = gain(results, count, &won, &lost);
    const bool holds = b.mean >= LEAST_GAIN && b.p < LARGEST_P;
    printf("joint - RAG: %+.1f points, 95%% interval %.1f to %.1f, p = %.2g (paired bootstrap over queries, "
           "%d resamples, seeds as strata); queries gained %d, lost %d; McNemar p = %.2g\n",
           100 * b.mean, 100 * b.low, 100 * b.high, b.p, RESAMPLES, won, lost, analysis_mcnemar(won, lost));
    printf("%s: joint - RAG is %s 10 points with p < 0.01\n", holds ? "PASS" : "FAIL",
           holds ? "at least" : "not at least");
    for (int i = 0; i < count; i++) {
        run_result_free(results[i]);
    }
    return holds ? EXIT_OK : CLAIM_FAILED;
}
