// world: what the tests of scoring and training share: a few drawn cases, and models of toy size
// for them.
#ifndef JOMED_TESTS_WORLD_H
#define JOMED_TESTS_WORLD_H

#include "host/evaluate.h"
#include "host/index.h"
#include "host/optim.h"
#include "tests/check.h"

typedef struct {
    int queries, corpus;
    bool has_long_labels; // three labels of several tokens, else two of one token each
    int lora_rank;        // of the reader, 0: no adapter
    bool is_trainable;    // retriever and base of the reader
} WorldConfig;

typedef struct {
    WorldConfig config;
    Device *dev;
    Tokenizer *tokenizer;
    ProcessorConfig tower_processor, reader_processor;
    Dataset *queries, *corpus;
    LabelSet labels;
    Retriever *retriever;
    Reader *reader;
    PromptMaker prompts;
    Index *index;              // f32 rows of the retriever's towers
    float *rows[INDEX_SIDES];  // (corpus,E) the same on the host
    float *fixed;              // (queries,E) f(v)
    ScoreStore *store;         // in memory
} World;
World *world_new(const WorldConfig *config);
void world_free(World *world);
Scorer world_scorer(World *world); // over the world's store; freed with scorer_free
// Exit code of a child process that runs the function; -1 when a signal ended it.
int world_exit_code(void (*body)(void *ctx), void *ctx);

// All trainable tensors of a list, one after the other without gaps: values, or first moments of an
// optimiser divided by 1 - beta1, which after one step are the gradient it was given. Caller frees.
float *world_values_new(const TensorList *list);
float *world_gradient_new(const Optim *optim);
// The gradient of a loss against central differences of the same loss, tensor by tensor along the
// gradient itself, where the loss sees a wrong scale or sign best. loss: in double, but over an f32
// forward, so steps are wide and agreement is to one per cent of the whole gradient's length.
void expect_list_gradient(TensorList *list, const float *gradient, double (*loss)(void *ctx),
                          void *ctx);

#endif
