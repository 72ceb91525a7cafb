// vocab: a table of pieces, what an id stands for, and the way back from bytes to id.
#ifndef JOMED_HOST_VOCAB_H
#define JOMED_HOST_VOCAB_H

#include "kernels/base.h"

// PIECE_NONE: an id that nothing has. PIECE_SPECIAL: an id that plain text never gives.
typedef enum { PIECE_NONE, PIECE_SPECIAL, PIECE_WORD, PIECE_BYTE } PieceKind;
typedef struct {
    char *bytes; // owned, may hold NUL bytes; size of them, then one NUL
    int size;
    PieceKind kind;
} Piece;

typedef struct {
    Piece *pieces;  // (count)
    int count;      // ids are 0 .. count-1
    int32_t *slots; // open hash table from bytes to id, of the pieces that were indexed
    int slot_count; // a power of two, at least twice the pieces
} Vocab;

// Slots of `size` bytes, all -1, for an open hash table of at most `most` entries; their number is
// a power of two, at least twice as many and 16. Caller frees.
void *slots_new(int *slot_count, int most, size_t size);

enum { VOCAB_MOST = 1 << 22 }; // ids

// Ids 0 .. count-1, all PIECE_NONE.
Vocab vocab_new(int count);
void vocab_free(Vocab *vocab);
// Sets a piece; one that is there already is replaced.
void vocab_set(Vocab *vocab, int32_t id, PieceKind kind, const char *bytes, size_t size);
// Makes id the one that vocab_find gives for its bytes; false when another id has these bytes.
bool vocab_index(Vocab *vocab, int32_t id);
// The indexed id with these bytes, or -1.
int32_t vocab_find(const Vocab *vocab, const char *bytes, size_t size);
// For readers of files: sets a word and indexes it. Error: an id out of range or taken, bytes that
// are empty, there twice, or not UTF-8 although they should be.
Error vocab_put(Vocab *vocab, int64_t id, const char *bytes, size_t size, bool is_text);
uint64_t vocab_hash(const Vocab *vocab, uint64_t seed);

#endif
