// train_reader: the reader learns to answer, one passage per prompt: cross-entropy of the answer tokens.
// What is trained (LoRA adapters, or all weights) is what the reader was built with.
#ifndef JOMED_HOST_TRAIN_READER_H
#define JOMED_HOST_TRAIN_READER_H

#include "optim.h"
#include "prompt.h"

typedef struct {
    PromptInput prompt;    // pixels on the host, not cached features: the vision tower may be learning
    const int32_t *answer; // token ids
    int answer_count;
} ReaderExample;

typedef struct {
    Device *dev;
    Reader *reader;
    PromptMaker *prompts;
    Optim optim;
    Arena arena;
    ReaderBatch batch;
    bool recomputes; // recompute activations in the backward instead of keeping them
} ReaderTrainer;
ReaderTrainer reader_trainer_new(Device *dev, Reader *reader, PromptMaker *prompts,
                                 const OptimConfig *optim, bool recomputes);
void reader_trainer_free(ReaderTrainer *trainer);
// One step on B examples. Returns the loss: the mean over all answer tokens of the batch.
double reader_trainer_step(ReaderTrainer *trainer, const ReaderExample *examples, int B, double lr);

#endif
