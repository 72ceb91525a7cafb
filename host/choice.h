// choice: from the logits of the next token to the token.
//
//   scores = penalized(logits)         of ids seen so far: x p if negative, x / p otherwise
//   greedy: the largest, the first of equals
//   sampled: scores / temperature; the top_k largest stay, and all equal to the last of them; of
//            these the largest whose probabilities sum to top_p, at least one; a draw by softmax
// Each step in this order, in f32, as transformers' logits processors do it; sums of probabilities
// are in f64 here, and equal scores leave by top_p in the order of their ids. Left out: beams,
// minimal lengths, bad words. Source: transformers' LogitsProcessor classes; Keskar et al. 2019
// (penalty); Holtzman et al. 2020 (top-p).
#ifndef JOMED_HOST_CHOICE_H
#define JOMED_HOST_CHOICE_H

#include "json.h"

enum { CHOICE_ENDS = 8 };
typedef struct {
    bool is_sampled;
    double temperature, top_p, penalty; // 1: without effect
    int top_k;                          // 0: all
    int32_t ends[CHOICE_ENDS];          // ids after which an answer is over
    int end_count;
} ChoiceConfig;
ChoiceConfig choice_greedy(void); // no penalty, no ends

// What a parsed generation_config.json says; absent members keep what *out holds. Error: a member
// of the wrong type or range; fields that would choose in a way we do not know, by name.
Error choice_config_read(ChoiceConfig *out, const json_t *config);
bool choice_is_end(const ChoiceConfig *config, int32_t id);

// The penalty for n seen ids (repeats count once), in place. scores: (V)
void choice_penalize(float *scores, int V, const int32_t *seen, int n, double penalty);
// Temperature, top_k, top_p in place: what cannot be drawn becomes -inf.
void choice_warp(float *scores, int V, const ChoiceConfig *config);
int32_t choice_largest(const float *scores, int V); // -1: none is a number above -inf
// The id at u in [0,1) of the cumulated softmax, ids ascending; -1 as above.
int32_t choice_draw(const float *scores, int V, double u);

#endif
