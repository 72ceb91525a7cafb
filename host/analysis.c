// analysis: see analysis.h.
#include "analysis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base.h"

// ---- inconsistency and oracles ----
void analysis_inconsistent(bool *out, const int *predicted, int Q, int P) {
    for (int q = 0; q < Q; q++) {
        out[q] = false;
        for (int p = 1; p < P; p++) {
            out[q] = out[q] || predicted[q * P + p] != predicted[q * P];
        }
    }
}

double analysis_oracle(const int *predicted, const int *gold, const bool *subset, int Q, int P,
                       int n) {
    int count = 0, right = 0;
    for (int q = 0; q < Q; q++) {
        if (subset && !subset[q]) {
            continue;
        }
        bool is_right = false;
        for (int p = 0; p < P && p < n; p++) {
            is_right = is_right || predicted[q * P + p] == gold[q];
        }
        count++;
        right += is_right;
    }
    return count ? (double)right / count : NAN;
}

double analysis_floor(const int *predicted, const int *gold, const bool *subset, int Q, int P) {
    int count = 0, right = 0;
    for (int q = 0; q < Q; q++) {
        if (subset && !subset[q]) {
            continue;
        }
        for (int p = 0; p < P; p++) {
            count++;
            right += predicted[q * P + p] == gold[q];
        }
    }
    return count ? (double)right / count : NAN;
}

// ---- rerankers ----
const char *analysis_reranker_name(Reranker reranker) {
    static const char *const names[RERANK_COUNT] = {"retriever score", "reader max probability",
                                                    "reader margin", "agreement",
                                                    "predicted utility"};
    return names[reranker];
}

PassageView *passage_views_new(int Q, int k, int C, const float *scores, const int *caption_length,
                               const double *probability) {
    const size_t places = (size_t)Q * 2 * k;
    PassageView *views = xcalloc(places, sizeof *views);
    for (size_t i = 0; i < places; i++) {
        const int p = (int)(i % (size_t)(2 * k));
        views[i] = (PassageView){.rank = p % k, .probability = probability + i * C,
                                 .caption_length = caption_length ? caption_length[i] : 0};
        if (scores) {
            views[i].image_score = scores[i];
            views[i].text_score = scores[places + i];
            views[i].score = p < k ? scores[i] : scores[places + i];
        }
    }
    return views;
}

static int arg_max(const double *p, int C) {
    int best = 0;
    for (int c = 1; c < C; c++) {
        best = p[c] > p[best] ? c : best;
    }
    return best;
}

static double margin(const double *p, int C) {
    const int best = arg_max(p, C);
    double second = -INFINITY;
    for (int c = 0; c < C; c++) {
        if (c != best && p[c] > second) {
            second = p[c];
        }
    }
    return C > 1 ? p[best] - second : p[best];
}

static void features(double x[UTILITY_FEATURES], const PassageView *view) {
    x[0] = view->image_score;
    x[1] = view->text_score;
    x[2] = view->rank;
    x[3] = view->caption_length;
}

double analysis_utility(const UtilityModel *model, const PassageView *view) {
    double x[UTILITY_FEATURES], sum = model->intercept;
    features(x, view);
    for (int k = 0; k < UTILITY_FEATURES; k++) {
        sum += model->weight[k] * (x[k] - model->mean[k]) / model->scale[k];
    }
    return sum;
}

// Solves the symmetric positive definite A w = b of small size by Gaussian elimination.
static void solve(double A[UTILITY_FEATURES][UTILITY_FEATURES], double b[UTILITY_FEATURES],
                  double w[UTILITY_FEATURES]) {
    enum { N = UTILITY_FEATURES };
    for (int k = 0; k < N; k++) {
        for (int i = k + 1; i < N; i++) {
            const double factor = A[i][k] / A[k][k];
            for (int j = k; j < N; j++) {
                A[i][j] -= factor * A[k][j];
            }
            b[i] -= factor * b[k];
        }
    }
    for (int k = N - 1; k >= 0; k--) {
        double sum = b[k];
        for (int j = k + 1; j < N; j++) {
            sum -= A[k][j] * w[j];
        }
        w[k] = sum / A[k][k];
    }
}

UtilityModel analysis_fit_utility(const PassageView *views, const double *gold_score, int n,
                                  double lambda) {
    enum { N = UTILITY_FEATURES };
    CHECK(n > 0 && lambda > 0, "n=%d lambda=%g", n, lambda);
    UtilityModel model;
    memset(&model, 0, sizeof model);
    double x[N];
    for (int i = 0; i < n; i++) {
        features(x, &views[i]);
        for (int k = 0; k < N; k++) {
            model.mean[k] += x[k] / n;
        }
        model.intercept += gold_score[i] / n; // the mean of g, since features will be centred
    }
    for (int i = 0; i < n; i++) {
        features(x, &views[i]);
        for (int k = 0; k < N; k++) {
            model.scale[k] += (x[k] - model.mean[k]) * (x[k] - model.mean[k]) / n;
        }
    }
    for (int k = 0; k < N; k++) { // a constant feature carries nothing: leave it at zero
        model.scale[k] = model.scale[k] > 0 ? sqrt(model.scale[k]) : 1.0;
    }
    double A[N][N] = {{0}}, b[N] = {0};
    for (int i = 0; i < n; i++) {
        features(x, &views[i]);
        for (int k = 0; k < N; k++) {
            x[k] = (x[k] - model.mean[k]) / model.scale[k];
        }
        for (int k = 0; k < N; k++) {
            b[k] += x[k] * (gold_score[i] - model.intercept);
            for (int j = 0; j < N; j++) {
                A[k][j] += x[k] * x[j];
            }
        }
    }
    for (int k = 0; k < N; k++) {
        A[k][k] += lambda;
    }
    solve(A, b, model.weight);
    return model;
}

// How much the reranker likes passage p of a query; the score breaks ties of agreement.
static double liking(Reranker reranker, const PassageView *views, const UtilityModel *utility,
                     int p, int P, int C) {
    switch (reranker) {
    case RERANK_SCORE: return views[p].score;
    case RERANK_MAX_PROB: return views[p].probability[arg_max(views[p].probability, C)];
    case RERANK_MARGIN: return margin(views[p].probability, C);
    case RERANK_UTILITY: return analysis_utility(utility, &views[p]);
    default: break;
    }
    int votes = 0;
    const int mine = arg_max(views[p].probability, C);
    for (int k = 0; k < P; k++) {
        votes += arg_max(views[k].probability, C) == mine;
    }
    return votes;
}

void analysis_rerank(int *choice, Reranker reranker, const PassageView *views,
                     const UtilityModel *utility, int Q, int P, int C) {
    CHECK(reranker != RERANK_UTILITY || utility, "reranker %d needs a utility model", reranker);
    for (int q = 0; q < Q; q++) {
        const PassageView *row = views + (size_t)q * P;
        int best = 0;
        for (int p = 1; p < P; p++) {
            const double a = liking(reranker, row, utility, p, P, C);
            const double b = liking(reranker, row, utility, best, P, C);
            const bool by_score = reranker == RERANK_AGREEMENT;
            if (a > b || (a == b && by_score && row[p].score > row[best].score)) {
                best = p;
            }
        }
        choice[q] = best;
    }
}

// ---- significance ----
double analysis_mcnemar(int b, int c) {
    const int n = b + c, k = b < c ? b : c;
    double tail = 0;
    for (int i = 0; i <= k; i++) { // binomial terms by logarithms: n may be thousands
        tail += exp(lgamma(n + 1.0) - lgamma(i + 1.0) - lgamma(n - i + 1.0) - n * log(2.0));
    }
    return n == 0 ? 1.0 : fmin(1.0, 2 * tail);
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Mean over strata of the statistic over `index`, whose entries are grouped by stratum.
static double stratified(bootstrap_statistic_fn *statistic, void *ctx, const int *index,
                         const int *start, int strata) {
    double sum = 0;
    for (int s = 0; s < strata; s++) {
        sum += statistic(index + start[s], start[s + 1] - start[s], ctx);
    }
    return sum / strata;
}

Bootstrap analysis_bootstrap(bootstrap_statistic_fn *statistic, void *ctx, const int *stratum,
                             int n, int strata, int resamples, uint64_t seed) {
    CHECK(n > 0 && strata > 0 && resamples > 0, "n=%d strata=%d resamples=%d", n, strata,
          resamples);
    int *members = xmalloc((size_t)n, sizeof *members), *drawn = xmalloc((size_t)n, sizeof *drawn);
    int *start = xcalloc((size_t)strata + 1, sizeof *start);
    double *values = xmalloc((size_t)resamples, sizeof *values);
    int used = 0;
    for (int s = 0; s < strata; s++) {
        for (int i = 0; i < n; i++) {
            if (stratum[i] == s) {
                members[used++] = i;
            }
        }
        start[s + 1] = used;
        CHECK(start[s + 1] > start[s], "stratum %d is empty", s);
    }
    Bootstrap out = {.mean = stratified(statistic, ctx, members, start, strata)};
    int at_most_zero = 0, at_least_zero = 0;
    for (int r = 0; r < resamples; r++) {
        Rng rng = rng_new(seed, RNG_BOOTSTRAP, (uint32_t)r, 0);
        for (int s = 0; s < strata; s++) {
            const int size = start[s + 1] - start[s];
            for (int i = 0; i < size; i++) {
                drawn[start[s] + i] = members[start[s] + (int)rng_below(&rng, (uint32_t)size)];
            }
        }
        values[r] = stratified(statistic, ctx, drawn, start, strata);
        at_most_zero += values[r] <= 0;
        at_least_zero += values[r] >= 0;
    }
    qsort(values, (size_t)resamples, sizeof *values, by_value);
    out.low = values[(int)(0.025 * (resamples - 1))];
    out.high = values[(int)ceil(0.975 * (resamples - 1))];
    const int fewer = at_most_zero < at_least_zero ? at_most_zero : at_least_zero;
    out.p = fmin(1.0, 2.0 * (fewer + 1) / (resamples + 1));
    free(members);
    free(drawn);
    free(start);
    free(values);
    return out;
}

static double mean_statistic(const int *index, int n, void *ctx) {
    const double *difference = ctx;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += difference[index[i]];
    }
    return sum / n;
}

Bootstrap analysis_bootstrap_mean(const double *difference, const int *stratum, int n, int strata,
                                  int resamples, uint64_t seed) {
    double *copy = xmalloc((size_t)n, sizeof *copy); // ctx is not const
    memcpy(copy, difference, (size_t)n * sizeof *copy);
    const Bootstrap out =
        analysis_bootstrap(mean_statistic, copy, stratum, n, strata, resamples, seed);
    free(copy);
    return out;
}

void analysis_mean_sd(double *mean, double *sd, const double *x, int n) {
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++) {
        sum += x[i];
    }
    *mean = n ? sum / n : NAN;
    for (int i = 0; i < n; i++) {
        squares += (x[i] - *mean) * (x[i] - *mean);
    }
    *sd = n > 1 ? sqrt(squares / (n - 1)) : NAN;
}
