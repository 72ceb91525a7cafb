// baseline: see baseline.h.
#include "baseline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- majority ----
void baseline_majority(int *answers, double *probability, const Dataset *train, int Q, int C) {
    int *counts = xcalloc((size_t)C, sizeof *counts), total = 0, best = 0;
    for (int i = 0; i < train->n; i++) {
        const int label = train->records[i].label;
        CHECK(label < C, "label %d of %d classes", label, C);
        if (label >= 0) {
            counts[label]++;
            total++;
        }
    }
    for (int c = 1; c < C; c++) {
        best = counts[c] > counts[best] ? c : best;
    }
    for (int q = 0; q < Q; q++) {
        answers[q] = best;
        for (int c = 0; c < C; c++) {
            probability[(size_t)q * C + c] = total ? (double)counts[c] / total : 1.0 / C;
        }
    }
    free(counts);
}

// ---- nearest neighbours ----
typedef struct {
    double cosine;
    int label;
} Neighbour;

static double dot(const float *a, const float *b, int E) {
    double sum = 0;
    for (int e = 0; e < E; e++) {
        sum += (double)a[e] * b[e];
    }
    return sum;
}

static double inverse_length(const float *row, int E) {
    const double square = dot(row, row, E);
    return square > 0 ? 1 / sqrt(square) : 0;
}

// Puts a row into the list of the k best, best first; rows come in ascending order, so behind equal
// ones is where it belongs. Returns the new length.
static int insert(Neighbour *list, int length, int k, Neighbour found) {
    if (length == k && !(found.cosine > list[k - 1].cosine)) {
        return length;
    }
    int at = length < k ? length : k - 1;
    for (; at > 0 && found.cosine > list[at - 1].cosine; at--) {
        list[at] = list[at - 1];
    }
    list[at] = found;
    return length < k ? length + 1 : k;
}

// The class with most votes; walking from the nearest on and asking for more makes ties go to the
// class that is met first.
static int vote(double *share, const Neighbour *list, int length, int C) {
    memset(share, 0, (size_t)C * sizeof *share);
    for (int i = 0; i < length; i++) {
        share[list[i].label] += 1;
    }
    int best = list[0].label;
    for (int i = 1; i < length; i++) {
        best = share[list[i].label] > share[best] ? list[i].label : best;
    }
    for (int c = 0; c < C; c++) {
        share[c] /= length;
    }
    return best;
}

void baseline_neighbours(int *answers, double *probability, const float *train_embeddings,
                         const int *train_labels, int n, const float *queries, int Q, int E, int C,
                         int k) {
    CHECK(k >= 1, "k=%d", k);
    double *scale = xmalloc((size_t)n, sizeof *scale);
    for (int i = 0; i < n; i++) {
        CHECK(train_labels[i] < C, "label %d of %d classes", train_labels[i], C);
        scale[i] = inverse_length(train_embeddings + (size_t)i * E, E);
    }
    Neighbour *list = xmalloc((size_t)k, sizeof *list);
    for (int q = 0; q < Q; q++) {
        const float *query = queries + (size_t)q * E;
        const double own = inverse_length(query, E);
        int length = 0;
        for (int i = 0; i < n; i++) {
            if (train_labels[i] >= 0) {
                const double cosine = dot(query, train_embeddings + (size_t)i * E, E) * own *
                                      scale[i];
                length = insert(list, length, k, (Neighbour){cosine, train_labels[i]});
            }
        }
        CHECK(length > 0, "none of %d rows is labelled", n);
        answers[q] = vote(probability + (size_t)q * C, list, length, C);
    }
    free(list);
    free(scale);
}
