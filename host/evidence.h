// evidence: from what the reader says of the labels to the gold score g of a passage.
// Source: JOMED (arXiv 2508.17394) and its reference implementation.
#ifndef JOMED_HOST_EVIDENCE_H
#define JOMED_HOST_EVIDENCE_H

// out[c] = softmax over the C labels of x[c]. out may alias nothing.
void evidence_softmax(double *out, const float *x, int C);

// g = log pi(y), pi = softmax over the label set of the label log-probabilities (a closed set).
double evidence_label(const float *logprob, int C, int y);

// exact.double_softmax: cross-entropy whose inputs are already probabilities,
// g = pi(y) - log sum_c exp(pi(c)), pi = softmax of the raw label logits. A window of one nat.
double evidence_double_softmax(const float *raw, int C, int y);

#endif
