// tokenizer: the table of pieces every kind shares, and the rule of the kind `tiny`; see
// tokenizer.h.
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base.h"

// ---- table of pieces ----
// Slot of the piece with these bytes, or the free slot where it would go.
static int find_slot(const Tokenizer *tok, const char *bytes, size_t size) {
    const int mask = tok->slot_count - 1;
    int slot = (int)(xxh64(bytes, size, 0) & (uint64_t)mask);
    for (;; slot = (slot + 1) & mask) {
        const int32_t id = tok->slots[slot];
        if (id < 0 || ((size_t)tok->pieces[id].size == size &&
                       memcmp(tok->pieces[id].bytes, bytes, size) == 0)) {
            return slot;
        }
    }
}

static int32_t find_piece(const Tokenizer *tok, const char *bytes, size_t size) {
    return tok->slots[find_slot(tok, bytes, size)];
}

static void set_piece(Tokenizer *tok, int32_t id, PieceKind kind, const char *bytes, size_t size) {
    Piece *piece = &tok->pieces[id];
    piece->kind = kind;
    piece->size = (int)size;
    piece->bytes = xmalloc(size + 1, 1);
    memcpy(piece->bytes, bytes, size);
    piece->bytes[size] = '\0';
    if (kind != PIECE_BYTE) {
        const int slot = find_slot(tok, bytes, size);
        CHECK(size > 0 && tok->slots[slot] < 0, "token '%s' is empty or there twice", piece->bytes);
        tok->slots[slot] = id;
    }
    const int32_t head[2] = {(int32_t)kind, piece->size};
    tok->hash = xxh64(piece->bytes, size, xxh64(head, sizeof head, tok->hash));
}

static Tokenizer *table_new(TokenizerKind kind, int vocab) {
    Tokenizer *tok = xcalloc(1, sizeof *tok);
    tok->kind = kind;
    tok->vocab = vocab;
    tok->pieces = xcalloc((size_t)vocab, sizeof *tok->pieces);
    for (tok->slot_count = 16; tok->slot_count < 2 * vocab; tok->slot_count *= 2) {
    }
    tok->slots = xmalloc((size_t)tok->slot_count, sizeof *tok->slots);
    memset(tok->slots, 0xFF, (size_t)tok->slot_count * sizeof *tok->slots); // all -1
    tok->hash = (uint64_t)kind + 1;
    return tok;
}

void tokenizer_free(Tokenizer *tok) {
    if (!tok) {
        return;
    }
    for (int id = 0; id < tok->vocab; id++) {
        free(tok->pieces[id].bytes);
    }
    free(tok->pieces);
    free(tok->slots);
    free(tok);
}

int32_t tokenizer_id(const Tokenizer *tok, const char *special) {
    const int32_t id = find_piece(tok, special, strlen(special));
    return id >= 0 && tok->pieces[id].kind == PIECE_SPECIAL ? id : -1;
}

// ---- tiny ----
static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

Tokenizer *tokenizer_tiny_new(const char *const *specials, int n, const char *const *words, int m) {
    CHECK(n >= 0 && m >= 0, "n=%d m=%d", n, m);
    Tokenizer *tok = table_new(TOKENIZER_TINY, n + m + 256);
    for (int i = 0; i < n; i++) {
        set_piece(tok, i, PIECE_SPECIAL, specials[i], strlen(specials[i]));
    }
    for (int i = 0; i < m; i++) {
        for (const char *c = words[i]; *c; c++) {
            CHECK(!is_blank(*c), "word '%s' holds a blank", words[i]);
        }
        set_piece(tok, n + i, PIECE_WORD, words[i], strlen(words[i]));
    }
    tok->first_byte = n + m;
    for (int b = 0; b < 256; b++) {
        const char byte = (char)b;
        set_piece(tok, tok->first_byte + b, PIECE_BYTE, &byte, 1);
    }
    return tok;
}

typedef struct {
    int32_t *ids;
    int count, max;
} Sink;

static void put(Sink *sink, int32_t id) {
    if (sink->count < sink->max) {
        sink->ids[sink->count] = id;
    }
    CHECK(sink->count < INT32_MAX, "text of more than %d tokens", INT32_MAX);
    sink->count++;
}

static void put_bytes(const Tokenizer *tok, Sink *sink, const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        put(sink, tok->first_byte + (uint8_t)text[i]);
    }
}

static int tiny_encode(const Tokenizer *tok, const char *text, size_t size, Sink *sink) {
    bool is_after_word = false;      // the last run that was not blank is a listed word
    size_t blanks = 0, blank_at = 0; // blanks read since then and not yet written
    for (size_t at = 0; at < size;) {
        size_t end = at;
        while (end < size && is_blank(text[end]) == is_blank(text[at])) {
            end++;
        }
        if (is_blank(text[at])) {
            blank_at = at;
            blanks = end - at;
            at = end;
            continue;
        }
        int32_t id = find_piece(tok, text + at, end - at);
        if (id >= 0 && tok->pieces[id].kind != PIECE_WORD) {
            id = -1; // text that spells a special token is only text
        }
        const bool is_implied = is_after_word && id >= 0 && blanks == 1 && text[blank_at] == ' ';
        if (!is_implied) {
            put_bytes(tok, sink, text + blank_at, blanks);
        }
        blanks = 0;
        if (id >= 0) {
            put(sink, id);
        } else {
            put_bytes(tok, sink, text + at, end - at);
        }
        is_after_word = id >= 0;
        at = end;
    }
    put_bytes(tok, sink, text + blank_at, blanks);
    return sink->count;
}

// ---- all kinds ----
int tokenizer_encode(const Tokenizer *tok, const char *text, size_t size, int32_t *ids, int max) {
    Sink sink = {.ids = ids, .max = max};
    CHECK(tok->kind == TOKENIZER_TINY, "kind %d", (int)tok->kind);
    return tiny_encode(tok, text, size, &sink);
}

char *tokenizer_decode_new(const Tokenizer *tok, const int32_t *ids, int n, size_t *size) {
    size_t room = 1;
    for (int i = 0; i < n; i++) {
        CHECK(ids[i] >= 0 && ids[i] < tok->vocab, "id %d of %d", ids[i], tok->vocab);
        room += (size_t)tok->pieces[ids[i]].size + 1; // and the space before it
    }
    char *text = xmalloc(room, 1);
    size_t used = 0;
    bool is_after_word = false;
    for (int i = 0; i < n; i++) {
        const Piece *piece = &tok->pieces[ids[i]];
        if (piece->kind == PIECE_SPECIAL) {
            continue;
        }
        if (is_after_word && piece->kind == PIECE_WORD) {
            text[used++] = ' ';
        }
        memcpy(text + used, piece->bytes, (size_t)piece->size);
        used += (size_t)piece->size;
        is_after_word = piece->kind == PIECE_WORD;
    }
    text[used] = '\0';
    if (size) {
        *size = used;
    }
    return text;
}
