// fusion: from the reader's answers to a query's passages to one answer.
#ifndef JOMED_HOST_FUSION_H
#define JOMED_HOST_FUSION_H

#include <stdbool.h>
#include <stdint.h>

// Passages come as two lists, the image head's kI then the text head's kT; P = kI + kT >= 1.

// Probability mixture: p(c) = sum_head w_head sum_d softmax(s/T)_d pi_d(c), softmax within the
// head, w = image_weight and 1 - image_weight (a head without passages leaves its weight to the
// other).
// out: (C)   probability: (P,C) rows pi_d   scores: (P)
void fusion_mixture(double *out, const double *probability, const float *scores, int kI, int kT,
                    int C, double T, double image_weight);

// The original's fusion of logits: w = softmax(scores) over all passages at temperature 1, in f64;
// out[c] = sum_d w_d logit_d(c). is_max_norm (exact.max_norm): each head's scores are first divided
// by their maximum, unless that is 0 (a negative one turns the order round, as in the original). A
// passage of weight 0 is left out even if a logit is -inf. logits: (P,C). The answer is the first
// largest element.
void fusion_logits(double *out, const float *logits, const float *scores, int kI, int kT, int C,
                   bool is_max_norm);

// exact.fusion in full: the same weights over rows of scores of the whole vocabulary, (rows,V) of
// each of the P passages; out[t] is the first largest of the fused row t, whatever came before it,
// an end token too. out: (rows)
void fusion_tokens(int32_t *out, const float *const *rows_of_passage, int rows, int V,
                   const float *scores, int kI, int kT, bool is_max_norm);

// Majority of the P predictions; ties go to the class whose first vote came first.
int fusion_vote(const int *predicted, int P);

#endif
