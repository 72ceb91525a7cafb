// bpe: byte-pair encoding of one piece of text.
//
// A piece starts as one symbol per byte, the last one marked where the model has a word-end suffix.
// Then, again and again, the adjacent pair with the lowest rank is replaced by its result, the
// leftmost among equals, until no adjacent pair has one.
// Here symbols are ids, so bytes and suffixes concern only those who make the table.
// Time: n log n in the bytes of the piece.
// Source: Sennrich et al. 2016; GPT-2's encoder.py; tiktoken.
#ifndef JOMED_HOST_BPE_H
#define JOMED_HOST_BPE_H

#include "kernels/base.h"

typedef struct {
    int32_t left, right, rank, result; // left < 0: a free slot
} Merge;

typedef struct {
    int32_t byte[256], last_byte[256]; // symbol of a byte, and of the last one of a piece
    Merge *merges;                     // open hash table by (left, right)
    int merge_count, slot_count;       // a power of two, at least twice the merges
    struct BpeNode *nodes;             // scratch: symbols of the piece, as a list
    struct BpeCandidate *heap;         // scratch: pairs that had a merge when they were seen
    size_t room;                       // bytes both have room for
} Bpe;

Bpe bpe_new(int most_merges);
void bpe_free(Bpe *bpe);
// False when the pair has a merge already.
bool bpe_add(Bpe *bpe, int32_t left, int32_t right, int32_t rank, int32_t result);
const Merge *bpe_find(const Bpe *bpe, int32_t left, int32_t right); // or NULL
// out has room for size ids; returns their number. size >= 1. Uses the scratch of *bpe.
int bpe_encode(Bpe *bpe, const char *piece, size_t size, int32_t *out);

#endif
