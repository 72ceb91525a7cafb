// generate: answers of a reader, token by token, for several prompts at once.
//
// One pass reads all prompts, each later one the last token of every sequence that is not over;
// keys and values stay in a cache of B (T_max + max_tokens) positions. An answer depends on its
// prompt, the seed and its number alone, not on the rest of the batch, and its tokens are those
// that passes over the whole sequence would give. An image token is never chosen.
#ifndef JOMED_HOST_GENERATE_H
#define JOMED_HOST_GENERATE_H

#include "choice.h"
#include "models/reader.h"

typedef struct {
    ChoiceConfig choice;
    int max_tokens;
    uint64_t seed;
    uint32_t first;    // number of the first prompt: draws depend on it
    int32_t pad;       // >= 0: sequences that are over are fed it until all are, as transformers
                       // does, whose scores then have as many rows for all; -1: they stop
    bool keeps_scores;
} GenerateConfig;

typedef struct {
    int B, max_tokens, V;
    int32_t *ids;  // (B,max_tokens)
    int *counts;   // (B) ids of an answer, the end token among them
    bool *is_over; // (B) ended by itself, not by max_tokens
    float *scores; // (steps of max_tokens rows: (B,max_tokens,V)) what the ids were chosen from,
                   // penalized, before the temperature; NULL unless kept
    size_t cache_bytes; // what keys and values took
    int *rows;     // (B) rows of scores: counts, or more where sequences are padded
} Generated;

// Told of every token; false ends the sequence.
typedef bool generate_seen(void *ctx, int sequence, const int32_t *ids, int count, bool is_over);
// prompts: the last row of each is wanted, and no other (CHECK). seen may be NULL. Dies with
// EXIT_DIVERGED where logits are not numbers.
Generated generate_new(Reader *reader, const ReaderBatch *prompts, const GenerateConfig *config,
                       generate_seen *seen, void *ctx);
void generated_free(Generated *generated);

#endif
