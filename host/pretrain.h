// pretrain: the towers learn from image-caption pairs by the symmetric contrastive loss.
#ifndef JOMED_HOST_PRETRAIN_H
#define JOMED_HOST_PRETRAIN_H

#include "encode.h"
#include "optim.h"

typedef struct {
    Device *dev;
    Retriever *retriever; // trainable
    const Tokenizer *tokenizer;
    Optim optim;
    Arena arena;
    int max_tokens;
    bool learns_temperature; // else logit_scale stays what it is
} Pretrainer;
// temperature: scores are a.b / temperature at the start.
Pretrainer pretrainer_new(Device *dev, Retriever *retriever, const Tokenizer *tokenizer,
                          const OptimConfig *optim, double temperature, bool learns_temperature,
                          int max_tokens);
void pretrainer_free(Pretrainer *trainer);
// One step on B pairs. pixels: (B,3,S,S) f32 on the host. Returns the loss (mean of both
// directions).
double pretrainer_step(Pretrainer *trainer, const float *pixels, const char *const *texts, int B,
                       double lr);
// Device memory that such a step takes.
Arena pretrainer_plan(Pretrainer *trainer, const char *const *texts, int B);

#endif
