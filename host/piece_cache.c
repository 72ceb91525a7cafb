// piece_cache: see piece_cache.h.
#include "piece_cache.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 1 << 15, MOST = SLOTS / 2 };

static CachedPiece *find_slot(PieceCache *cache, const char *piece, size_t size, uint64_t hash) {
    for (uint32_t slot = hash & (SLOTS - 1);; slot = (slot + 1) & (SLOTS - 1)) {
        CachedPiece *entry = &cache->slots[slot];
        if (entry->size == 0 || (entry->hash == hash && entry->size == size &&
                                 memcmp(cache->texts + entry->text, piece, size) == 0)) {
            return entry;
        }
    }
}

const int32_t *piece_cache_find(PieceCache *cache, const char *piece, size_t size, int *count) {
    if (!cache->slots) {
        cache->slots = xcalloc(SLOTS, sizeof *cache->slots);
    }
    const CachedPiece *entry = find_slot(cache, piece, size, xxh64(piece, size, 0));
    if (entry->size == 0) {
        return NULL;
    }
    *count = (int)entry->count;
    return cache->ids + entry->ids;
}

void piece_cache_add(PieceCache *cache, const char *piece, size_t size, const int32_t *ids,
                     int count) {
    CHECK(cache->slots && size > 0 && size <= PIECE_CACHE_LONGEST, "a piece of %zu bytes", size);
    if (cache->used == MOST) {
        memset(cache->slots, 0, SLOTS * sizeof *cache->slots);
        cache->text_used = cache->ids_used = 0;
        cache->used = 0;
    }
    while (cache->text_room < cache->text_used + size) {
        cache->text_room = cache->text_room ? 2 * cache->text_room : 4096;
        cache->texts = xrealloc(cache->texts, cache->text_room, 1);
    }
    while (cache->ids_room < cache->ids_used + (size_t)count) {
        cache->ids_room = cache->ids_room ? 2 * cache->ids_room : 4096;
        cache->ids = xrealloc(cache->ids, cache->ids_room, sizeof *cache->ids);
    }
    const uint64_t hash = xxh64(piece, size, 0);
    *find_slot(cache, piece, size, hash) =
        (CachedPiece){hash, (uint32_t)cache->text_used, (uint32_t)size, (uint32_t)cache->ids_used,
                      (uint32_t)count};
    memcpy(cache->texts + cache->text_used, piece, size);
    memcpy(cache->ids + cache->ids_used, ids, (size_t)count * sizeof *ids);
    cache->text_used += size;
    cache->ids_used += (size_t)count;
    cache->used++;
}

void piece_cache_free(PieceCache *cache) {
    free(cache->slots);
    free(cache->texts);
    free(cache->ids);
    *cache = (PieceCache){0};
}
