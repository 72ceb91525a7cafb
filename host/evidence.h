// evidence: from what the reader says of the labels to the gold score g of a passage.
//
// If every label is impossible (all -inf) g is -inf, which the objective takes for no evidence, and
// the softmax is uniform. NaN stays NaN. f64 inside. Source: JOMED (arXiv 2508.17394) and its code.
#ifndef JOMED_HOST_EVIDENCE_H
#define JOMED_HOST_EVIDENCE_H

#include <stdbool.h>
#include <stdint.h>

// out[c] = softmax over the C labels of x[c]. out may alias nothing.
void evidence_softmax(double *out, const float *x, int C);

// g = log pi(y), pi = softmax over the label set of the label log-probabilities (a closed set).
double evidence_label(const float *logprob, int C, int y);

// exact.double_softmax: cross-entropy whose inputs are already probabilities,
// g = pi(y) - log sum_c exp(pi(c)), pi = softmax of the raw label logits. Whatever the reader says,
// g stays in a window of one nat: [-log(e + C - 1), 1 - log(e + C - 1)].
double evidence_double_softmax(const float *raw, int C, int y);

// Labels the reader is asked about when a task has C classes: exact.retina6 adds one that no sample
// has, to the five of the retina task.
int evidence_label_count(int C, bool is_retina6);

// Mean over n >= 1 tokens. Of teacher-forced log-probabilities: l(y), the gold score of an open
// answer. Of the logits of a label's tokens: the label logit of the original.
double evidence_mean(const float *token, int n);

// Of scores (rows,V) that a reader's own greedy answer was chosen from, penalized where
// exact.rep_penalty says so:
// exact.greedy_prefix: label logit of n <= rows tokens, the mean of score t of token t.
double evidence_own_logit(const float *scores, int rows, int V, const int32_t *tokens, int n);
// exact.saved_logits: what the original writes to disk, the sum over all rows of one token's score.
double evidence_saved_logit(const float *scores, int rows, int V, int32_t token);

#endif
