// metrics: see metrics.h.
#define _POSIX_C_SOURCE 200809L
#include "metrics.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "kernels/base.h"

static double ratio_or_zero(double numerator, double denominator) {
    return denominator > 0 ? numerator / denominator : 0.0;
}

ClassMetrics metrics_classify(const int *predicted, const int *gold, int n, int C) {
    ClassMetrics out = {.n = n, .accuracy = NAN, .macro_precision = NAN, .macro_recall = NAN,
                        .macro_f1 = NAN};
    if (n == 0) {
        return out;
    }
    int *hits = xcalloc((size_t)C * 3, sizeof *hits), *said = hits + C, *truth = hits + 2 * C;
    int right = 0;
    for (int i = 0; i < n; i++) {
        CHECK(gold[i] >= 0 && gold[i] < C && predicted[i] < C,
              "row %d: gold %d, predicted %d of %d", i, gold[i], predicted[i], C);
        truth[gold[i]]++;
        if (predicted[i] >= 0) {
            said[predicted[i]]++;
        }
        if (predicted[i] == gold[i]) {
            hits[gold[i]]++;
            right++;
        }
    }
    int seen = 0;
    double precision = 0, recall = 0, f1 = 0;
    for (int c = 0; c < C; c++) {
        if (truth[c] + said[c] > 0) {
            seen++;
            precision += ratio_or_zero(hits[c], said[c]);
            recall += ratio_or_zero(hits[c], truth[c]);
            f1 += ratio_or_zero(2.0 * hits[c], truth[c] + said[c]);
        }
    }
    free(hits);
    out.accuracy = (double)right / n;
    out.macro_precision = precision / seen;
    out.macro_recall = recall / seen;
    out.macro_f1 = f1 / seen;
    return out;
}

void metrics_confusion(int *counts, const int *predicted, const int *gold, int n, int C) {
    memset(counts, 0, (size_t)C * (size_t)C * sizeof *counts);
    for (int i = 0; i < n; i++) {
        if (predicted[i] >= 0) {
            counts[gold[i] * C + predicted[i]]++;
        }
    }
}

// ---- ranking ----
typedef struct {
    double score;
    bool is_positive;
} Ranked;

static int by_score(const void *a, const void *b) {
    const double x = ((const Ranked *)a)->score, y = ((const Ranked *)b)->score;
    return (x > y) - (x < y);
}

double metrics_auc(const double *score, const bool *is_positive, int n) {
    Ranked *ranked = xmalloc((size_t)n, sizeof *ranked);
    double positives = 0;
    bool is_finite = true;
    for (int i = 0; i < n; i++) {
        ranked[i] = (Ranked){score[i], is_positive[i]};
        positives += is_positive[i];
        is_finite = is_finite && !isnan(score[i]);
    }
    const double negatives = n - positives;
    if (positives == 0 || negatives == 0 || !is_finite) {
        free(ranked);
        return NAN;
    }
    qsort(ranked, (size_t)n, sizeof *ranked, by_score);
    // In groups of equal scores: each positive beats the negatives below, and half of its group's.
    double wins = 0, negatives_below = 0;
    for (int i = 0; i < n;) {
        double group_positives = 0, group_negatives = 0;
        int j = i;
        for (; j < n && ranked[j].score == ranked[i].score; j++) {
            *(ranked[j].is_positive ? &group_positives : &group_negatives) += 1;
        }
        wins += group_positives * (negatives_below + 0.5 * group_negatives);
        negatives_below += group_negatives;
        i = j;
    }
    free(ranked);
    return wins / (positives * negatives);
}

// AUC of column c of probability (n,C) against the rows for which is_positive holds.
static double column_auc(const double *probability, const bool *is_positive, int n, int C, int c) {
    double *column = xmalloc((size_t)n, sizeof *column);
    for (int i = 0; i < n; i++) {
        column[i] = probability[(size_t)i * C + c];
    }
    const double auc = metrics_auc(column, is_positive, n);
    free(column);
    return auc;
}

MedmnistMetrics metrics_medmnist(const double *probability, const int *gold, int n, int C) {
    MedmnistMetrics out = {NAN, NAN};
    if (n == 0) {
        return out;
    }
    bool *is_positive = xmalloc((size_t)n, sizeof *is_positive);
    double auc = 0;
    for (int c = C == 2 ? 1 : 0; c < C; c++) {
        for (int i = 0; i < n; i++) {
            is_positive[i] = gold[i] == c;
        }
        auc += column_auc(probability, is_positive, n, C, c);
    }
    free(is_positive);
    int right = 0;
    for (int i = 0; i < n; i++) {
        const double *p = probability + (size_t)i * C;
        int best = 0;
        for (int c = 1; c < C; c++) {
            best = p[c] > p[best] ? c : best;
        }
        right += gold[i] == (C == 2 ? p[1] > 0.5 : best);
    }
    out.auc = auc / (C == 2 ? 1 : C);
    out.acc = (double)right / n;
    return out;
}

MedmnistMetrics metrics_medmnist_multilabel(const double *probability, const uint32_t *gold, int n,
                                            int C) {
    MedmnistMetrics out = {NAN, NAN};
    if (n == 0) {
        return out;
    }
    bool *is_positive = xmalloc((size_t)n, sizeof *is_positive);
    double auc = 0, right = 0;
    for (int c = 0; c < C; c++) {
        for (int i = 0; i < n; i++) {
            is_positive[i] = gold[i] >> c & 1;
            right += (probability[(size_t)i * C + c] > 0.5) == is_positive[i];
        }
        auc += column_auc(probability, is_positive, n, C, c);
    }
    free(is_positive);
    out.auc = auc / C;
    out.acc = right / ((double)n * C);
    return out;
}

double metrics_subset_accuracy(const uint32_t *predicted, const uint32_t *gold, int n) {
    int right = 0;
    for (int i = 0; i < n; i++) {
        right += predicted[i] == gold[i];
    }
    return n ? (double)right / n : NAN;
}

// ---- closed questions ----
// True when text, without blanks around, equals word, ignoring case.
static bool is_word(const char *text, const char *word) {
    while (isspace((unsigned char)*text)) {
        text++;
    }
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1])) {
        length--;
    }
    return strlen(word) == length && strncasecmp(text, word, length) == 0;
}

double metrics_vqa_closed(const char *const *answer, const char *const *gold, int n, int *closed) {
    int count = 0, right = 0;
    for (int i = 0; i < n; i++) {
        const char *want = is_word(gold[i], "yes") ? "yes" : is_word(gold[i], "no") ? "no" : NULL;
        if (want) {
            count++;
            right += is_word(answer[i], want);
        }
    }
    if (closed) {
        *closed = count;
    }
    return count ? (double)right / count : NAN;
}
