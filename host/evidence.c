// evidence: see evidence.h.
#include "evidence.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base.h"

static double log_sum_exp(const float *x, int C) {
    double largest = -INFINITY, sum = 0;
    for (int c = 0; c < C; c++) {
        largest = x[c] > largest ? x[c] : largest;
    }
    for (int c = 0; c < C; c++) {
        sum += exp(x[c] - largest);
    }
    return largest + log(sum);
}

void evidence_softmax(double *out, const float *x, int C) {
    const double lse = log_sum_exp(x, C);
    for (int c = 0; c < C; c++) {
        out[c] = exp(x[c] - lse);
    }
}

double evidence_label(const float *logprob, int C, int y) {
    CHECK(y >= 0 && y < C, "y=%d C=%d", y, C);
    return logprob[y] - log_sum_exp(logprob, C);
}

double evidence_double_softmax(const float *raw, int C, int y) {
    CHECK(y >= 0 && y < C, "y=%d C=%d", y, C);
    double *pi = xmalloc((size_t)C, sizeof *pi), sum = 0;
    evidence_softmax(pi, raw, C);
    for (int c = 0; c < C; c++) {
        sum += exp(pi[c]);
    }
    const double g = pi[y] - log(sum);
    free(pi);
    return g;
}
