// own_words: what the original makes of a reader's answers in its own words, beside the label
// probabilities that this program answers by (exact.parser, exact.tail_decode, exact.fusion,
// exact.saved_logits). Leaves out: answers that name several classes, and the second parser of the
// original's scripts for reports. Source: JOMED (arXiv 2508.17394) and its code.
#ifndef JOMED_HOST_OWN_WORDS_H
#define JOMED_HOST_OWN_WORDS_H

#include "evaluate.h"

enum { OWN_TOKENS = 8 }; // the original's answers are no longer

// ---- formulas ----
// The class that a text names, or -1. By the original's rule (exact.parser) the first class whose
// name is anywhere in the text, in the order of the classes: "2 ... 0" is 0. Of "No" and "Yes" it
// looks for "No" and "Ye"; where these classes have small letters, it looks in a lower-cased text.
// By ours, the class whose name the text begins with, blanks aside; of several the longest name.
int own_parse(const char *text, const char *const *classes, int C, bool is_exact);
// The ids whose text is parsed: those of the answer; exact.tail_decode: the last OWN_TOKENS of
// prompt and answer together, so that a short answer brings the end of its prompt along. out has
// room for OWN_TOKENS; returns how many. count <= OWN_TOKENS.
int own_ids(int32_t *out, const int32_t *prompt, int T, const int32_t *answer, int count,
            bool is_tail);

// ---- an evaluation ----
typedef struct {
    bool is_parser, is_tail, is_fusion, has_saved_logits; // the exact switches
    bool is_max_norm;
    ChoiceConfig choice; // ends, and the penalty of exact.rep_penalty
    int32_t pad;         // what sequences that are over are fed
} OwnConfig;
typedef struct {
    int Q, P, C;
    char **texts;       // (Q,P) with each passage
    char **fused_texts; // (Q), NULL without is_fusion
    int *parsed;        // (Q,P) their classes, or -1
    int *fused;         // (Q)
    double *saved;      // (Q,P,C) without has_saved_logits NULL
} OwnWords;
// Asks again for what an evaluation has asked, query by query.
OwnWords *own_words_new(Scorer *scorer, const Evaluation *evaluation, Dataset *queries,
                        Dataset *corpus, const OwnConfig *config);
void own_words_free(OwnWords *words); // NULL too
// Shares of right classes: of all texts, and of the fused ones (NaN without).
double own_words_accuracy(const OwnWords *words, const Dataset *queries, bool is_fused);

#endif
