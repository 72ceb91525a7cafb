// vocab: see vocab.h.
#include "vocab.h"

#include <stdlib.h>
#include <string.h>

Vocab vocab_new(int count) {
    CHECK(count >= 0 && count <= VOCAB_MOST, "%d pieces", count);
    Vocab vocab = {.count = count, .slot_count = 16};
    vocab.pieces = xcalloc((size_t)count + 1, sizeof *vocab.pieces);
    while (vocab.slot_count < 2 * count) {
        vocab.slot_count *= 2;
    }
    vocab.slots = xmalloc((size_t)vocab.slot_count, sizeof *vocab.slots);
    memset(vocab.slots, 0xFF, (size_t)vocab.slot_count * sizeof *vocab.slots); // all -1
    return vocab;
}

void vocab_free(Vocab *vocab) {
    for (int id = 0; id < vocab->count; id++) {
        free(vocab->pieces[id].bytes);
    }
    free(vocab->pieces);
    free(vocab->slots);
    *vocab = (Vocab){0};
}

void vocab_set(Vocab *vocab, int32_t id, PieceKind kind, const char *bytes, size_t size) {
    CHECK(id >= 0 && id < vocab->count, "id %d of %d", id, vocab->count);
    Piece *piece = &vocab->pieces[id];
    char *copy = xmalloc(size + 1, 1);
    memcpy(copy, bytes, size);
    copy[size] = '\0';
    free(piece->bytes);
    *piece = (Piece){copy, (int)size, kind};
}

// Slot of the piece with these bytes, or the free slot where it would go.
static int find_slot(const Vocab *vocab, const char *bytes, size_t size) {
    const int mask = vocab->slot_count - 1;
    int slot = (int)(xxh64(bytes, size, 0) & (uint64_t)mask);
    for (;; slot = (slot + 1) & mask) {
        const int32_t id = vocab->slots[slot];
        if (id < 0 || ((size_t)vocab->pieces[id].size == size &&
                       memcmp(vocab->pieces[id].bytes, bytes, size) == 0)) {
            return slot;
        }
    }
}

bool vocab_index(Vocab *vocab, int32_t id) {
    const Piece *piece = &vocab->pieces[id];
    const int slot = find_slot(vocab, piece->bytes, (size_t)piece->size);
    if (vocab->slots[slot] >= 0) {
        return vocab->slots[slot] == id;
    }
    vocab->slots[slot] = id;
    return true;
}

int32_t vocab_find(const Vocab *vocab, const char *bytes, size_t size) {
    return vocab->slots[find_slot(vocab, bytes, size)];
}

uint64_t vocab_hash(const Vocab *vocab, uint64_t seed) {
    for (int id = 0; id < vocab->count; id++) {
        const Piece *piece = &vocab->pieces[id];
        const int32_t head[2] = {(int32_t)piece->kind, piece->size};
        seed = xxh64(piece->bytes, (size_t)piece->size, xxh64(head, sizeof head, seed));
    }
    return seed;
}
