// analysis: what retrieval leaves on the table: inconsistency, oracles, rerankers, significance.
// Source: JOMED (arXiv 2508.17394), the analysis of inconsistent retrieval predictions.
//
// Throughout, predicted is (Q,P) row-major: the class the reader gives query q with its passage p;
// gold is (Q).
#ifndef JOMED_HOST_ANALYSIS_H
#define JOMED_HOST_ANALYSIS_H

#include <stdbool.h>
#include <stdint.h>

// out[q] = the passages of q lead to more than one prediction.
void analysis_inconsistent(bool *out, const int *predicted, int Q, int P);

// Mean over q of: some passage among the first n leads to the gold answer. subset (or NULL): only
// queries for which it holds. NaN when there are none.
double analysis_oracle(const int *predicted, const int *gold, const bool *subset, int Q, int P,
                       int n);
// Mean over q and p of: passage p leads to the gold answer (what a blind choice would reach).
double analysis_floor(const int *predicted, const int *gold, const bool *subset, int Q, int P);

// ---- rerankers: choose one passage per query, inherit its prediction ----
typedef enum {
    RERANK_SCORE,     // largest retriever score
    RERANK_MAX_PROB,  // largest probability the reader gives its own prediction
    RERANK_MARGIN,    // largest gap between the reader's two most probable labels
    RERANK_AGREEMENT, // the prediction most passages share; among those the best score
    RERANK_UTILITY,   // largest predicted gold score, by the ridge regression below
    RERANK_COUNT
} Reranker;
const char *analysis_reranker_name(Reranker reranker);

// What is known of one evaluated passage.
typedef struct {
    double score;                  // of the head that found it
    double image_score, text_score; // under both heads
    int rank;                      // 0 for the best of its head
    int caption_length;            // tokens
    const double *probability;     // (C) the reader's label probabilities
} PassageView;

// Views of the 2k passages of each of Q queries, image head first; caller frees. The arrays live as
// long. scores: (2,Q,2k) under the image and the text head, or NULL: all 0. caption_length: (Q,2k)
// or NULL: all 0. probability: (Q,2k,C).
PassageView *passage_views_new(int Q, int k, int C, const float *scores, const int *caption_length,
                               const double *probability);

// Ridge regression of the gold score g on (image score, text score, rank, caption length), each
// standardised, with an intercept that is not penalised, on the training split: minimises
//   sum (g - w.x - b)^2 + lambda |w|^2
enum { UTILITY_FEATURES = 4 };
typedef struct {
    double mean[UTILITY_FEATURES], scale[UTILITY_FEATURES], weight[UTILITY_FEATURES], intercept;
} UtilityModel;
UtilityModel analysis_fit_utility(const PassageView *views, const double *gold_score, int n,
                                  double lambda);
double analysis_utility(const UtilityModel *model, const PassageView *view);

// choice[q] = the passage chosen, ties to the first. views: (Q,P). utility: for RERANK_UTILITY.
void analysis_rerank(int *choice, Reranker reranker, const PassageView *views,
                     const UtilityModel *utility, int Q, int P, int C);

// ---- significance ----
// Exact two-sided McNemar test: b queries only the first system gets right, c only the second.
// p = min(1, 2 P(Binomial(b+c, 1/2) <= min(b,c))); 1 when b + c = 0.
double analysis_mcnemar(int b, int c);

// Paired bootstrap over queries, resampled within strata (for example the seed of a run).
// statistic(index, n, ctx) is the difference between two systems over the queries index[0..n-1]; it
// is averaged over the strata with equal weights.
// p is two-sided, 2 min(P(d* <= 0), P(d* >= 0)), with 1 added to counts and resamples, at most 1.
typedef double bootstrap_statistic_fn(const int *index, int n, void *ctx);
typedef struct {
    double mean;      // on the data as they are
    double low, high; // 2.5 and 97.5 percentiles of the resamples
    double p;
} Bootstrap;
// stratum: (n) numbers 0..strata-1, every stratum non-empty.
Bootstrap analysis_bootstrap(bootstrap_statistic_fn *statistic, void *ctx, const int *stratum,
                             int n, int strata, int resamples, uint64_t seed);
// The same for a mean of per-query differences.
Bootstrap analysis_bootstrap_mean(const double *difference, const int *stratum, int n, int strata,
                                  int resamples, uint64_t seed);

// Mean and sample standard deviation (NaN for n = 1).
void analysis_mean_sd(double *mean, double *sd, const double *x, int n);

#endif
