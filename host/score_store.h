// score_store: what the frozen reader said of a (query, passage) pair, computed once, kept for
// ever.
//
// A record holds, for each of C labels, the raw logit of its first token and the summed
// log-probability of its tokens, and the reader's greedy first token. The key is a 128-bit hash of
// everything that could change them: the reader (tensors with adapter, dtype), tokenizer, prompt
// form, label set, resize rule, numerics version, and the pair itself (query image bytes, question,
// passage image bytes, caption).
//
// Files: a directory of append-only files, one per writer; readers load all of them. A record
// carries a checksum; a torn or damaged tail is cut off when loading, records before it stay. Two
// jobs may share a directory: each sees what the others had written when it opened.
#ifndef JOMED_HOST_SCORE_STORE_H
#define JOMED_HOST_SCORE_STORE_H

#include "file.h"
#include "kernels/base.h"

typedef struct {
    uint64_t word[2];
} ScoreKey;
// Key of a pair under a context (both are hashes themselves).
ScoreKey score_key(uint64_t context, uint64_t query, uint64_t passage);

typedef struct {
    int C;
    bool is_enabled;     // score_store.enable: false keeps nothing, every look-up misses
    size_t count, slots; // records, and the size of the table (a power of two)
    ScoreKey *keys;      // (slots); a free slot has row -1
    int32_t *rows;       // (slots) record number
    float *values;       // (room, 2 C + 1): raw logits, log-probabilities, greedy token's bits
    size_t room;
    int fd;              // file of this writer, -1 in memory only
    char *path;
    uint64_t hits, misses; // of score_store_get
    size_t cut_bytes;    // damaged tails left out on loading
} ScoreStore;

// dir NULL: in memory only. C: labels of a record; files with another C are left alone.
Error score_store_open(ScoreStore **out, const char *dir, int C, bool is_enabled);
Error score_store_close(ScoreStore *store); // frees it in any case
// raw, logprob: (C) each, may be NULL; greedy may be NULL. False: not known.
bool score_store_get(ScoreStore *store, ScoreKey key, float *raw, float *logprob, int32_t *greedy);
// Remembers and appends. A key that is known is left as it is.
Error score_store_put(ScoreStore *store, ScoreKey key, const float *raw, const float *logprob,
                      int32_t greedy);

#endif
