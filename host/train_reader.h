// train_reader: the reader learns to answer, one passage per prompt: cross-entropy of the answer
// tokens and of the token that ends an answer, where the prompt form has one. What is trained (LoRA
// adapters, or all weights) is what the reader was built with.
// A step may take its prompts in several passes, whose gradients add up. Over the tokens t of
// passes p, with n_p tokens each, the loss is
//   sum_p sum_t CE / sum_p n_p               what a single pass gives
//   (1 / passes) sum_p (1 / n_p) sum_t CE    exact.micro_mean: transformers before 4.46
// Source: the Trainer of Hugging Face's transformers, as LLaMA-Factory uses it.
#ifndef JOMED_HOST_TRAIN_READER_H
#define JOMED_HOST_TRAIN_READER_H

#include "optim.h"
#include "sampler.h"
#include "scorer.h"

typedef struct {
    PromptInput prompt; // pixels on the host, not cached features: the vision tower may be learning
    const int32_t *answer; // token ids
    int32_t *own_answer;   // the same where they are the example's, or NULL
    int answer_count;
} ReaderExample;
void reader_example_free(ReaderExample *example); // its pixels, and its own answer

typedef struct {
    int micro_batch;    // prompts per pass; 0: all of a step in one
    bool is_micro_mean; // exact.micro_mean
    bool recomputes;    // recompute activations in the backward instead of keeping them
} ReaderTrainConfig;
typedef struct {
    Device *dev;
    Reader *reader;
    PromptMaker *prompts;
    Optim optim;
    Arena arena, losses; // losses: (rows) f32 of all passes of a step
    ReaderBatch batch;
    ReaderTrainConfig config;
    PictureFeed *feed; // of reader_task_step, or NULL
    int64_t fed_step;  // the first step whose pictures have not all been taken from it
} ReaderTrainer;
ReaderTrainer reader_trainer_new(Device *dev, Reader *reader, PromptMaker *prompts,
                                 const OptimConfig *optim, const ReaderTrainConfig *config);
void reader_trainer_free(ReaderTrainer *trainer);
// One step on B examples. Returns the loss.
double reader_trainer_step(ReaderTrainer *trainer, const ReaderExample *examples, int B, double lr);

// Queries with the passages found for them: record i is query i / P with its i mod P-th passage.
typedef struct {
    Dataset *queries, *corpus;
    const int32_t *passages; // (queries,P) rows of the corpus, -1: none, closed book
    int P;
    const LabelSet *labels;  // of queries that have a class; others are taught their answer's text
    const ProcessorConfig *processor;
    double closed_book_share; // chance that a record is shown without its passage
    uint64_t seed;
    Sampler *sampler;         // over queries * P records
} ReaderTask;
// Step number `step` (0-based) on the next B records. The pictures of step + 1 are prepared
// meanwhile: a trainer serves one task, with one B, and steps that follow each other cost least.
double reader_task_step(ReaderTrainer *trainer, const ReaderTask *task, int64_t step, int B,
                        double lr);
// Plan of this step; those of longer prompts take more.
Arena reader_task_plan(ReaderTrainer *trainer, const ReaderTask *task, int64_t step, int B);

#endif
