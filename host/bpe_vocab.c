// bpe_vocab: see bpe_vocab.h.
#include "bpe_vocab.h"

#include <stdlib.h>
#include <string.h>

#include "unicode.h"

#define BAD(...) error_at(EXIT_BAD_DATA, ERROR_NOWHERE, __VA_ARGS__)

// ---- merges ----
void merge_list_free(MergeList *list) {
    free(list->items);
    *list = (MergeList){0};
}

static void push(MergeList *list, RankedMerge merge) {
    if (list->count == list->room) {
        list->room = list->room ? 2 * list->room : 4096;
        list->items = xrealloc(list->items, (size_t)list->room, sizeof *list->items);
    }
    list->items[list->count++] = merge;
}

Error merge_list_add(MergeList *list, const Vocab *names, const char *left, size_t left_size,
                     const char *right, size_t right_size) {
    char room[256], *both = room;
    if (left_size + right_size > sizeof room) {
        both = xmalloc(left_size + right_size, 1);
    }
    memcpy(both, left, left_size);
    memcpy(both + left_size, right, right_size);
    const RankedMerge merge = {vocab_find(names, left, left_size),
                               vocab_find(names, right, right_size), list->count,
                               vocab_find(names, both, left_size + right_size)};
    if (both != room) {
        free(both);
    }
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
        const int most = 40;
        return BAD("merge %d, '%.*s' and '%.*s': %s is no token of the vocabulary",
                   list->count + 1, left_size < 40 ? (int)left_size : most, left,
                   right_size < 40 ? (int)right_size : most, right,
                   merge.left < 0    ? "the left one"
                   : merge.right < 0 ? "the right one"
                                     : "the result");
    }
    push(list, merge);
    return error_none();
}

Error merge_list_add_line(MergeList *list, const Vocab *names, const char *line, size_t size) {
    const char *space = memchr(line, ' ', size);
    const size_t left = space ? (size_t)(space - line) : 0;
    if (!space || memchr(space + 1, ' ', size - left - 1)) {
        return BAD("merge %d is not two tokens", list->count + 1);
    }
    return merge_list_add(list, names, line, left, space + 1, size - left - 1);
}

static Error fill_merges(Bpe *bpe, const MergeList *list) {
    const Bpe symbols = *bpe;
    *bpe = bpe_new(list->count + 1);
    memcpy(bpe->byte, symbols.byte, sizeof bpe->byte);
    memcpy(bpe->last_byte, symbols.last_byte, sizeof bpe->last_byte);
    for (int i = 0; i < list->count; i++) {
        const RankedMerge *m = &list->items[i];
        if (!bpe_add(bpe, m->left, m->right, m->rank, m->result)) {
            return BAD("merge %d is there twice", i + 1);
        }
    }
    return error_none();
}

// ---- the alphabet ----
static bool is_own_symbol(int byte) {
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

// Code point of every byte.
static void fill_alphabet(int32_t symbols[256]) {
    int32_t next = 0x100;
    for (int b = 0; b < 256; b++) {
        symbols[b] = is_own_symbol(b) ? b : next++;
    }
}

int byte_symbol(char out[4], uint8_t byte) {
    int32_t symbols[256];
    fill_alphabet(symbols);
    return utf8_write((uint8_t *)out, symbols[byte]);
}

// Byte of every code point below 0x100 + 68, or -1.
typedef struct {
    int16_t byte[0x144];
} Bytes;

static Bytes bytes_of_symbols(void) {
    Bytes table;
    int32_t symbols[256];
    memset(&table, 0xFF, sizeof table);
    fill_alphabet(symbols);
    for (int b = 0; b < 256; b++) {
        table.byte[symbols[b]] = (int16_t)b;
    }
    return table;
}

static size_t to_bytes(const Bytes *table, char *out, const char *token, size_t size) {
    size_t used = 0;
    for (size_t at = 0; at < size;) {
        int length;
        const int32_t c = utf8_read((const uint8_t *)token + at, &length);
        if (c >= 0x144 || table->byte[c] < 0) {
            memcpy(out, token, size);
            return size;
        }
        out[used++] = (char)table->byte[c];
        at += (size_t)length;
    }
    return used;
}

// ---- tokenizers ----
static Error find_symbols(Bpe *bpe, const Vocab *names, const char *suffix) {
    const size_t suffix_size = strlen(suffix);
    CHECK(suffix_size <= 16, "suffix '%s'", suffix);
    for (int b = 0; b < 256; b++) {
        char symbol[4 + 16];
        const int length = byte_symbol(symbol, (uint8_t)b);
        memcpy(symbol + length, suffix, suffix_size);
        bpe->byte[b] = vocab_find(names, symbol, (size_t)length);
        bpe->last_byte[b] = vocab_find(names, symbol, (size_t)length + suffix_size);
        if (bpe->byte[b] < 0 || bpe->last_byte[b] < 0) {
            return BAD("no token for byte 0x%02x%s; a byte-level vocabulary has all 256", b,
                       bpe->byte[b] < 0 ? "" : " at the end of a word");
        }
    }
    return error_none();
}

Error bpe_from_names(Tokenizer *tok, const Vocab *names, const MergeList *merges,
                     const char *suffix) {
    Error error = find_symbols(tok->bpe, names, suffix);
    if (error.code == EXIT_OK) {
        error = fill_merges(tok->bpe, merges);
    }
    const Bytes table = bytes_of_symbols();
    const size_t suffix_size = strlen(suffix);
    tok->has_word_ends = suffix_size > 0;
    char *bytes = NULL;
    size_t room = 0;
    for (int id = 0; id < names->count && error.code == EXIT_OK; id++) {
        const Piece *name = &names->pieces[id];
        if (name->kind == PIECE_NONE) {
            continue;
        }
        size_t size = (size_t)name->size;
        if (room < size + 1) {
            room = 2 * size + 64;
            bytes = xrealloc(bytes, room, 1);
        }
        const bool is_end = suffix_size > 0 && size >= suffix_size &&
                            memcmp(name->bytes + size - suffix_size, suffix, suffix_size) == 0;
        size = to_bytes(&table, bytes, name->bytes, size - (is_end ? suffix_size : 0));
        if (is_end) { // a word's end reads as a blank
            bytes[size++] = ' ';
        }
        vocab_set(&tok->table, id, PIECE_WORD, bytes, size);
        if (tok->is_whole_first && vocab_find(names, name->bytes, (size_t)name->size) == id) {
            vocab_index(&tok->table, id);
        }
    }
    free(bytes);
    return error;
}

Error bpe_from_ranks(Tokenizer *tok, int32_t first) {
    MergeList list = {0};
    tok->is_whole_first = true;
    Error error = error_none();
    for (int b = 0; b < 256 && error.code == EXIT_OK; b++) {
        const char byte = (char)b;
        const int32_t id = vocab_find(&tok->table, &byte, 1);
        tok->bpe->byte[b] = tok->bpe->last_byte[b] = id;
        if (id < 0) {
            error = BAD("no token for byte 0x%02x; a byte-level vocabulary has all 256", b);
        }
    }
    for (int32_t id = first; id < tok->vocab && error.code == EXIT_OK; id++) {
        const Piece *piece = &tok->table.pieces[id];
        for (int cut = 1; cut < piece->size; cut++) {
            const int32_t left = vocab_find(&tok->table, piece->bytes, (size_t)cut);
            const int32_t right =
                left < 0 ? -1
                         : vocab_find(&tok->table, piece->bytes + cut, (size_t)(piece->size - cut));
            if (right >= 0) {
                push(&list, (RankedMerge){left, right, id, id});
            }
        }
    }
    if (error.code == EXIT_OK) {
        error = fill_merges(tok->bpe, &list);
    }
    merge_list_free(&list);
    return error;
}
