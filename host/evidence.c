// evidence: see evidence.h.
#include "evidence.h"

#include <math.h>

#include "kernels/base.h"

// log sum_c exp(x[c]); -inf when every label is impossible.
static double log_sum_exp(const float *x, int C) {
    double largest = -INFINITY, sum = 0;
    for (int c = 0; c < C; c++) {
        largest = x[c] > largest ? x[c] : largest;
    }
    // -inf - -inf would be NaN. A row of NaN has no largest element either, and its sum stays NaN.
    const double shift = largest == -INFINITY ? 0 : largest;
    for (int c = 0; c < C; c++) {
        sum += exp(x[c] - shift);
    }
    return shift + log(sum);
}

void evidence_softmax(double *out, const float *x, int C) {
    const double lse = log_sum_exp(x, C);
    for (int c = 0; c < C; c++) {
        out[c] = lse == -INFINITY ? 1.0 / C : exp(x[c] - lse);
    }
}

double evidence_label(const float *logprob, int C, int y) {
    CHECK(y >= 0 && y < C, "y=%d C=%d", y, C);
    const double lse = log_sum_exp(logprob, C);
    return lse == -INFINITY ? -INFINITY : logprob[y] - lse;
}

double evidence_double_softmax(const float *raw, int C, int y) {
    CHECK(y >= 0 && y < C, "y=%d C=%d", y, C);
    const double lse = log_sum_exp(raw, C);
    if (lse == -INFINITY) {
        return -INFINITY;
    }
    double sum = 0;
    for (int c = 0; c < C; c++) {
        sum += exp(exp(raw[c] - lse));
    }
    return exp(raw[y] - lse) - log(sum);
}

int evidence_label_count(int C, bool is_retina6) { return C + (is_retina6 && C == 5); }

double evidence_mean(const float *token, int n) {
    CHECK(n >= 1, "n=%d", n);
    double sum = 0;
    for (int t = 0; t < n; t++) {
        sum += token[t];
    }
    return sum / n;
}

double evidence_own_logit(const float *scores, int rows, int V, const int32_t *tokens, int n) {
    CHECK(n >= 1 && n <= rows, "n=%d rows=%d", n, rows);
    double sum = 0;
    for (int t = 0; t < n; t++) {
        sum += scores[(size_t)t * V + tokens[t]];
    }
    return sum / n;
}

double evidence_saved_logit(const float *scores, int rows, int V, int32_t token) {
    double sum = 0;
    for (int t = 0; t < rows; t++) {
        sum += scores[(size_t)t * V + token];
    }
    return sum;
}
