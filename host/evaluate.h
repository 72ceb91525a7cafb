// evaluate: what a system answers: retrieve k passages per head, ask the reader once per passage,
// fuse.
#ifndef JOMED_HOST_EVALUATE_H
#define JOMED_HOST_EVALUATE_H

#include "analysis.h"
#include "encode.h"
#include "index.h"
#include "scorer.h"

// Ways from the answers per passage to one answer.
typedef enum {
    ANSWER_MIXTURE,      // probability mixture of both heads: the default
    ANSWER_LOGITS,       // the original's fusion of logits
    ANSWER_IMAGE,        // mixture of the image head's passages only
    ANSWER_TEXT,         // mixture of the text head's passages only
    ANSWER_COUNT
} Answer;
const char *answer_name(Answer answer);

// One system's answers to Q queries. Passage p < k is the image head's p-th, else the text head's
// (p - k)-th. Closed book: k = 0, P = 1 and passages -1.
typedef struct {
    int Q, k, P, C;
    int32_t *passages;    // (Q,P) corpus rows
    float *scores;        // (Q,P) of the head that found it
    float *side_scores;   // (INDEX_SIDES,Q,P) under both heads; NULL when the passages were given
    int *caption_length;  // (Q,P) tokens of the caption
    float *raw, *logprob; // (Q,P,C) of the labels
    double *probability;  // (Q,P,C) softmax over the labels of logprob
    int *predicted;       // (Q,P) its arg max
    double *fused; // (ANSWER_COUNT,Q,C) probabilities (ANSWER_LOGITS: softmax of the fused logits)
    int *answers;         // (ANSWER_COUNT,Q) classes
} Evaluation;

typedef struct {
    double temperature;   // T of the weights of a head's passages
    double image_weight;  // of the image head in the mixture, 1/2
    bool is_max_norm; // exact.max_norm: in ANSWER_LOGITS, scores divided by their head's maximum
} FusionConfig;
FusionConfig fusion_default(void);

// The k best passages of each side for every query, outside the query's own group: (Q,2k), image
// hits first. vectors: (Q,E) of either side. *scores (Q,2k) unless scores is NULL. Caller frees
// both. Dies with EXIT_BAD_DATA when a query has fewer.
int32_t *retrieve_new(const Index *index, const Dataset *queries,
                      const float *const vectors[INDEX_SIDES], int k, float **scores);
// Distinct random passages outside the query's own group, (Q,P), by seed and query number. Caller
// frees.
int32_t *random_passages_new(const Dataset *queries, const Dataset *corpus, int P, uint64_t seed);

// Retrieves and answers. query_image, query_text: (Q,E) mixed query vectors of the two heads.
Evaluation *evaluation_new(Scorer *scorer, const Index *index, Dataset *queries, Dataset *corpus,
                           const float *query_image, const float *query_text, int k,
                           const FusionConfig *fusion);
// The same with passages given: (Q,2k), scores (Q,2k) or NULL for equal ones. k = 0: closed book.
Evaluation *evaluation_of_passages_new(Scorer *scorer, Dataset *queries, Dataset *corpus,
                                       const int32_t *passages, const float *scores, int k,
                                       const FusionConfig *fusion);
void evaluation_free(Evaluation *evaluation);
// The regression behind RERANK_UTILITY, fitted on answers to training queries: the gold score of a
// passage is the log of the probability that the reader gives the right label. Wants side_scores.
UtilityModel evaluation_fit_utility(const Evaluation *train, const Dataset *queries);
// Share of right answers; subset (or NULL): only queries for which it holds. NaN for none.
double evaluation_accuracy(const Evaluation *evaluation, const Dataset *queries, Answer answer,
                           const bool *subset);

#endif
