// piece_cache: the ids of pieces seen before. Words of real text repeat: most are looked up here.
//
// When it is full, everything is forgotten; results never depend on what it holds.
#ifndef JOMED_HOST_PIECE_CACHE_H
#define JOMED_HOST_PIECE_CACHE_H

#include "kernels/base.h"

enum { PIECE_CACHE_LONGEST = 64 }; // bytes of a piece that is worth keeping

typedef struct {
    uint64_t hash;
    uint32_t text, size; // of the piece: place in texts; size 0: a free slot
    uint32_t ids, count; // place in ids
} CachedPiece;
typedef struct {
    CachedPiece *slots; // open hash table; NULL until the first piece
    char *texts;
    int32_t *ids;
    size_t text_used, text_room, ids_used, ids_room;
    int used;
} PieceCache;

// The ids of a piece of 1 to PIECE_CACHE_LONGEST bytes, valid until the next call; NULL: not here.
const int32_t *piece_cache_find(PieceCache *cache, const char *piece, size_t size, int *count);
// Keeps the ids of the piece that the last piece_cache_find did not find.
void piece_cache_add(PieceCache *cache, const char *piece, size_t size, const int32_t *ids,
                     int count);
void piece_cache_free(PieceCache *cache);

#endif
