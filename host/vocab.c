// vocab: see vocab.h.
#include "vocab.h"

#include <stdlib.h>
#include <string.h>

#include "unicode.h"

void *slots_new(int *slot_count, int most, size_t size) {
    *slot_count = 16;
    while (*slot_count < 2 * most) {
        *slot_count *= 2;
    }
    return memset(xmalloc((size_t)*slot_count, size), 0xFF, (size_t)*slot_count * size);
}

Vocab vocab_new(int count) {
    CHECK(count >= 0 && count <= VOCAB_MOST, "%d pieces", count);
    Vocab vocab = {.count = count};
    vocab.pieces = xcalloc((size_t)count + 1, sizeof *vocab.pieces);
    vocab.slots = slots_new(&vocab.slot_count, count, sizeof *vocab.slots);
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

Error vocab_put(Vocab *vocab, int64_t id, const char *bytes, size_t size, bool is_text) {
    const char *what = NULL;
    if (id < 0 || id >= vocab->count) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "a token's id %lld is outside 0 .. %d",
                        (long long)id, vocab->count - 1);
    }
    if (size == 0) {
        what = "is empty";
    } else if (is_text && (utf8_valid(bytes, size) < size || memchr(bytes, 0, size))) {
        what = "is not UTF-8 text";
    } else if (vocab->pieces[id].kind != PIECE_NONE) {
        what = "has an id that another token has";
    } else {
        vocab_set(vocab, (int32_t)id, PIECE_WORD, bytes, size);
        what = vocab_index(vocab, (int32_t)id) ? NULL : "is there twice";
    }
    return what ? error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "token %lld %s", (long long)id, what)
                : error_none();
}

uint64_t vocab_hash(const Vocab *vocab, uint64_t seed) {
    for (int id = 0; id < vocab->count; id++) {
        const Piece *piece = &vocab->pieces[id];
        const int32_t head[2] = {(int32_t)piece->kind, piece->size};
        seed = xxh64(piece->bytes, (size_t)piece->size, xxh64(head, sizeof head, seed));
    }
    return seed;
}
