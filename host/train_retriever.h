// train_retriever: a query head learns through the frozen reader, by the marginalised likelihood.
//
//   q~ = a h(v) + (1-a) f(v)       h live head, f fixed embedding, a = share
//   s_d = q~ . e_d                 over the K passages the search head finds
//   dL/dh = a sum_d dL/ds_d e_d    dL/ds from op marginal, the reader's evidence as gold scores
//
// The search head is a copy of the live head, refreshed every `refresh` steps; the queries of the
// steps up to the next refresh are searched in one sweep. Source: JOMED (arXiv 2508.17394).
#ifndef JOMED_HOST_TRAIN_RETRIEVER_H
#define JOMED_HOST_TRAIN_RETRIEVER_H

#include "encode.h"
#include "evidence.h"
#include "index.h"
#include "optim.h"
#include "sampler.h"
#include "scorer.h"

typedef struct {
    IndexSide side;         // which index the head searches, and so which head it is
    int K, batch, refresh, steps;
    float share;            // a
    MarginalConfig marginal;
    bool is_double_softmax; // exact.double_softmax: evidence from probabilities of probabilities
    bool is_recompute_fp32; // exact.recompute_fp32: scores in the loss from f32 rows
    bool is_stale_search_head; // exact.stale_search_head: no refresh before step `refresh`
    bool is_permuted;       // control: the evidence is shuffled over the passages of a query
    uint64_t seed;
} RetrieverTrainConfig;

// Passages a query was ever scored with, ascending.
typedef struct {
    int32_t *ids;
    int count, room;
} PassageSet;

// What a step works on, on the host; allocated once.
typedef struct {
    const int *queries;        // (B)
    const int32_t *candidates; // (B,K)
    float *pixels;             // (B,3,S,S) of the queries
    float *rows;               // (B,K,E) of the candidates
    float *g, *s, *ds;         // (B,K) gold scores, scores, dL/ds
    float *loss;               // (B,2) as op marginal says, and ds behind it
    int32_t *predicted;        // (B,K)
    float *h, *dh, *q;         // (B,E), (B,E), (E)
    void *narrow;              // (B,E) of the head's type
} RetrieverWork;

typedef struct {
    RetrieverTrainConfig config;
    Device *dev;
    Head *live, *search;    // the live head is trainable
    const Index *index;
    const float *rows_f32;  // (count, E) for is_recompute_fp32, else NULL
    const ProcessorConfig *processor;
    Dataset *queries, *corpus;
    Scorer *scorer;
    Sampler *sampler;
    float *fixed;           // (queries, E) f(v), computed once
    int32_t *query_group;   // (queries)
    Optim optim;
    Arena arena;
    RetrieverWork work;
    int step;               // steps done
    int block_start;        // first step of the candidates below, -1: none yet
    PictureFeed *feed;      // of the queries of that block, from the next step on
    int32_t *candidates;    // (refresh * batch, K) passages of the block's queries
    int *block_queries;     // (refresh * batch)
    PassageSet *seen;       // (queries), for U_q
} RetrieverTrainer;

// What a step reports.
typedef struct {
    double loss;        // minimised: mean over the batch, before any constant factor
    double nll;         // -log sum_d p_d exp(g_d)
    double hit_rate;    // of the score store, in this step
} RetrieverStep;

// fixed: (queries,E) embeddings by the frozen tower. live starts as it is given; search likewise.
RetrieverTrainer retriever_trainer_new(Device *dev, const RetrieverTrainConfig *config,
                                       const OptimConfig *optim, Head *live, Head *search,
                                       const Index *index, const float *rows_f32,
                                       const ProcessorConfig *processor, Dataset *queries,
                                       Dataset *corpus, Scorer *scorer, Sampler *sampler,
                                       const float *fixed);
void retriever_trainer_free(RetrieverTrainer *trainer);
RetrieverStep retriever_trainer_step(RetrieverTrainer *trainer, double lr);
// Plan of a step of the head and of its searches; its scorer takes memory of its own (scorer_plan).
Arena retriever_trainer_plan(RetrieverTrainer *trainer);
// Mean over the queries used so far of the number of distinct passages they were scored with.
double retriever_trainer_distinct(const RetrieverTrainer *trainer);

// out (n,E) = share * h + (1 - share) * f, all on the host.
void mix_queries(float *out, const float *h, const float *f, float share, int n, int E);

#endif
