// tekken: see tekken.h.
#include "tekken.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpe_vocab.h"
#include "text_lines.h"

#define BAD(...) error_at(EXIT_BAD_DATA, ERROR_NOWHERE, __VA_ARGS__)
enum { MOST_BYTES = 4096 }; // of one token

// ---- base64 ----
static int digit_of(char c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// Bytes of base64 text with padding (RFC 4648), at most size / 4 * 3; -1: it is none.
static int base64_decode(char *out, const char *text, size_t size) {
    int used = 0;
    if (size % 4 != 0) {
        return -1;
    }
    for (size_t at = 0; at < size; at += 4) {
        const bool is_last = at + 4 == size;
        const bool has_one = is_last && text[at + 3] == '=';
        const int pad = has_one + (has_one && text[at + 2] == '=');
        uint32_t bits = 0;
        for (size_t i = 0; i < 4; i++) {
            const int digit = i >= 4 - (size_t)pad ? 0 : digit_of(text[at + i]);
            if (digit < 0) {
                return -1;
            }
            bits = bits << 6 | (uint32_t)digit;
        }
        for (int i = 0; i < 3 - pad; i++) {
            out[used++] = (char)(bits >> (16 - 8 * i));
        }
    }
    return used;
}

// ---- ranks ----
static Error put_rank(Tokenizer *tok, int64_t id, const char *base64, size_t size) {
    char bytes[MOST_BYTES];
    const int length = size / 4 * 3 > sizeof bytes ? -1 : base64_decode(bytes, base64, size);
    if (length < 0) {
        return BAD("token %lld is not base64", (long long)id);
    }
    return vocab_put(&tok->table, id, bytes, (size_t)length, false);
}

// A line: base64, one space, the rank.
static Error read_rank(Tokenizer *tok, int32_t first, const char *line, size_t size) {
    const char *space = memchr(line, ' ', size), *const end = line + size;
    const char *digit = space ? space + 1 : end;
    int64_t rank = digit < end ? 0 : -1;
    for (; digit < end && *digit >= '0' && *digit <= '9' && rank < VOCAB_MOST; digit++) {
        rank = 10 * rank + (*digit - '0');
    }
    if (rank < 0 || digit < end) {
        return BAD("not a base64 text and a rank");
    }
    return put_rank(tok, first + rank, line, (size_t)(space - line));
}

static Error read_ranks(Tokenizer *tok, int32_t first, const char *text, size_t size) {
    TextLines lines = text_lines(text, size);
    const char *line;
    for (size_t length; text_lines_next(&lines, &line, &length);) {
        const Error error = read_rank(tok, first, line, length);
        if (error.code != EXIT_OK) {
            return error_at(error.code, ERROR_NOWHERE, "line %zu: %.180s", lines.number,
                            error.text);
        }
    }
    return error_none();
}

// ---- special tokens ----
static Error put_special(Tokenizer *tok, int32_t id, const char *name) {
    const AddedToken token = {.name = (char *)name, .id = id, .is_special = true};
    vocab_set(&tok->table, id, PIECE_WORD, name, strlen(name));
    return tokenizer_add(tok, &token);
}

static Error put_specials(Tokenizer *tok, int first, const json_t *names) {
    const char *name;
    json_t *value;
    Error error = error_none();
    json_object_foreach((json_t *)names, name, value) {
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (error.code == EXIT_OK && (id < 0 || id >= first)) {
            error = BAD("special token '%.40s': its id is no integer from 0 to %d", name,
                        first - 1);
        }
        if (error.code == EXIT_OK && tok->table.pieces[id].kind != PIECE_NONE) {
            error = BAD("special token '%.40s': id %lld is there twice", name, (long long)id);
        }
        if (error.code == EXIT_OK) {
            error = put_special(tok, (int32_t)id, name);
        }
    }
    for (int id = 0; id < first && error.code == EXIT_OK; id++) {
        if (tok->table.pieces[id].kind == PIECE_NONE) {
            char unnamed[32];
            snprintf(unnamed, sizeof unnamed, "<SPECIAL_%d>", id);
            error = put_special(tok, id, unnamed);
        }
    }
    return error;
}

// The one member that is an object of names.
static Error find_names(const json_t **names, const json_t *specials) {
    const char *key;
    json_t *value;
    *names = NULL;
    json_object_foreach((json_t *)specials, key, value) {
        if (json_is_object(value)) {
            if (*names) {
                return BAD("special tokens: two lists of names, one of them '%.40s'", key);
            }
            *names = value;
        }
    }
    return *names ? error_none() : BAD("special tokens: no object of names and ids");
}

Error tokenizer_from_ranks(Tokenizer **out, const char *ranks, size_t size,
                           const json_t *specials) {
    *out = NULL;
    const json_t *names;
    int64_t first = 0;
    Error error = json_member_int(specials, "num_special", true, 0, 65536, &first);
    if (error.code == EXIT_OK) {
        error = find_names(&names, specials);
    }
    if (error.code != EXIT_OK) {
        return error;
    }
    const size_t count = text_lines_count(ranks, size, VOCAB_MOST / 2);
    Tokenizer *tok = tokenizer_new(TOKENIZER_BPE, (int)(first + (int64_t)count));
    tok->splitter = CUT_TEKKEN;
    error = put_specials(tok, (int)first, names);
    if (error.code == EXIT_OK) {
        error = read_ranks(tok, (int32_t)first, ranks, size);
    }
    if (error.code == EXIT_OK) {
        error = bpe_from_ranks(tok, (int32_t)first);
    }
    if (error.code != EXIT_OK) {
        tokenizer_free(tok);
        return error;
    }
    tokenizer_finish(tok);
    *out = tok;
    return error_none();
}
