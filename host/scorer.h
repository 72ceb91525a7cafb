// scorer: what a frozen reader thinks of labels, for (query, passage) pairs, never computed twice.
//
// One prefill per pair; only the row before the answer reaches the LM head. A label of several
// tokens is teacher-forced, one prompt per label. Pairs known to the score store cost nothing;
// vision features come from the feature cache. Everything is batch-invariant, so that neither
// changes a bit.
#ifndef JOMED_HOST_SCORER_H
#define JOMED_HOST_SCORER_H

#include "dataset.h"
#include "feature_cache.h"
#include "generate.h"
#include "picture_feed.h"
#include "prompt.h"
#include "score_store.h"

#define SCORER_FEATURE_LIMIT ((size_t)1 << 30) // bytes of vision features that are kept

// The tokens of each label.
typedef struct {
    int C, max_tokens;
    int32_t *tokens; // (C, max_tokens), -1 behind the end
    int *counts;     // (C), each >= 1
    uint64_t hash;
} LabelSet;
// space_tokens: exact.space_tokens, " No" instead of "No".
LabelSet label_set_new(const Tokenizer *tokenizer, const char *const *names, int C,
                       bool space_tokens);
void label_set_free(LabelSet *labels);

typedef struct {
    Device *dev;
    Reader *reader;           // frozen while the scorer lives
    PromptMaker *prompts;
    const ProcessorConfig *processor;
    const LabelSet *labels;
    ScoreStore *store;
    FeatureCache features;
    Arena arena;
    ReaderBatch batch;
    uint64_t context;         // reader, tokenizer, prompt form, labels, processor, numerics version
    int pairs_per_pass;
    bool is_greedy_prefix;    // scorer_set_own
    double penalty;
    uint64_t pairs, forwards; // pairs asked for; prompts the reader really ran
} Scorer;
Scorer scorer_new(Device *dev, Reader *reader, PromptMaker *prompts,
                  const ProcessorConfig *processor, const LabelSet *labels, ScoreStore *store);
void scorer_free(Scorer *scorer);

// A pair: a row of the queries and a row of the corpus, or -1 for closed book.
typedef struct {
    int query, passage;
} Pair;
// raw, logprob: (n,C) f32 on the host, either may be NULL: raw logit of the first token, and summed
// log-probability of the label's tokens. A pair that stands there twice is computed once.
void scorer_scores(Scorer *scorer, float *raw, float *logprob, Dataset *queries, Dataset *corpus,
                   const Pair *pairs, int n);

// Device memory of a full pass of pairs like the first of both sets with their longest texts, and
// of the features of all pictures like these, as far as they are kept.
size_t scorer_plan(Scorer *scorer, Dataset *queries, Dataset *corpus, size_t *features);

// exact.greedy_prefix, exact.rep_penalty: raw becomes the original's label logit, the mean of the
// scores of a label's tokens along the reader's own greedy answer, penalized (1: not). Where the
// reader would end an answer before a label ends, which stops the original with an error, it is
// read on. Before the first scores.
void scorer_set_own(Scorer *scorer, bool is_greedy_prefix, double penalty);
// Answers to n pairs in the reader's own words; their prompts are in scorer->batch until the next
// call.
Generated scorer_generate_new(Scorer *scorer, Dataset *queries, Dataset *corpus, const Pair *pairs,
                              int n, const GenerateConfig *config);

// The image as the reader's vision tower wants it: pixels (3,h,w) to be freed by the caller. name:
// the file in messages. Dies with EXIT_CONFIG when the processor does not fit the tower.
ReaderImage reader_image_new(Device *dev, const ProcessorConfig *processor,
                             const VisionConfig *vision, const Image *image, const char *name);
// The same for the next row of a feed, and for one row of a data set.
ReaderImage reader_image_take_new(PictureFeed *feed, const VisionConfig *vision, Dataset *ds,
                                  int row);
ReaderImage reader_image_of_row(const ProcessorConfig *processor, const VisionConfig *vision,
                                Dataset *ds, int row);
// Hash of all tensors of a list, values and names: two readers with equal hashes score alike.
uint64_t tensors_hash(const TensorList *list);

#endif
