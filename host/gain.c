// gain: see gain.h.
#include "gain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"

// The compared queries of all runs in one row.
typedef struct {
    int *gold, *system, *baseline, *stratum;
    int n, C, strata;
    int *scratch; // (3,n): gold and two answers of a resample
} Paired;

static void append_run(Paired *paired, const RunResult *run, const SystemResult *system,
                       const SystemResult *baseline, Subset subset) {
    bool *use = subset_new(run, baseline, subset);
    const int before = paired->n;
    for (int q = 0; q < run->Q; q++) {
        if (use[q]) {
            paired->gold[paired->n] = run->gold[q];
            paired->system[paired->n] = system->answers[ANSWER_MIXTURE][q];
            paired->baseline[paired->n] = baseline->answers[ANSWER_MIXTURE][q];
            paired->stratum[paired->n++] = paired->strata;
        }
    }
    paired->strata += paired->n > before;
    free(use);
}

static double f1_difference(const int *index, int n, void *ctx) {
    const Paired *paired = ctx;
    int *gold = paired->scratch, *a = gold + paired->n, *b = a + paired->n;
    for (int i = 0; i < n; i++) {
        gold[i] = paired->gold[index[i]];
        a[i] = paired->system[index[i]];
        b[i] = paired->baseline[index[i]];
    }
    return metrics_classify(a, gold, n, paired->C).macro_f1 -
           metrics_classify(b, gold, n, paired->C).macro_f1;
}

static void free_paired(Paired *paired) {
    free(paired->gold);
    free(paired->system);
    free(paired->baseline);
    free(paired->stratum);
    free(paired->scratch);
}

Gain gain_of(const RunList *runs, const char *system, const char *baseline, Subset subset,
             bool with_f1) {
    const Bootstrap unknown = {NAN, NAN, NAN, NAN};
    Gain gain = {.accuracy = unknown, .f1 = unknown, .mcnemar = NAN};
    size_t room = 1;
    for (int i = 0; i < runs->count; i++) {
        room += runs->items[i].result ? (size_t)runs->items[i].result->Q : 0;
    }
    Paired paired = {.gold = xmalloc(room, sizeof(int)),
                     .system = xmalloc(room, sizeof(int)),
                     .baseline = xmalloc(room, sizeof(int)),
                     .stratum = xmalloc(room, sizeof(int)),
                     .scratch = xmalloc(3 * room, sizeof(int))};
    for (int i = 0; i < runs->count; i++) {
        const SystemResult *a = run_list_system(runs, i, system),
                           *b = run_list_system(runs, i, baseline);
        if (a && b) {
            paired.C = runs->items[i].result->C;
            append_run(&paired, runs->items[i].result, a, b, subset);
        }
    }
    gain.runs = paired.strata;
    gain.queries = paired.n;
    double *difference = xmalloc(room, sizeof *difference);
    for (int i = 0; i < paired.n; i++) {
        const int a = paired.system[i] == paired.gold[i], b = paired.baseline[i] == paired.gold[i];
        difference[i] = a - b;
        gain.won += a > b;
        gain.lost += a < b;
    }
    if (paired.n > 0) {
        gain.accuracy = analysis_bootstrap_mean(difference, paired.stratum, paired.n, paired.strata,
                                                GAIN_RESAMPLES, 1);
        gain.mcnemar = analysis_mcnemar(gain.won, gain.lost);
        if (with_f1) {
            gain.f1 = analysis_bootstrap(f1_difference, &paired, paired.stratum, paired.n,
                                         paired.strata, GAIN_RESAMPLES, 1);
        }
    }
    free(difference);
    free_paired(&paired);
    return gain;
}
