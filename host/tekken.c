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

// ---- the two forms ----
// Special tokens set, ranks to come.
static Error begin(Tokenizer **out, Splitter splitter, int first, size_t count,
                   const json_t *names) {
    *out = tokenizer_new(TOKENIZER_BPE, first + (int)count);
    (*out)->splitter = splitter;
    return put_specials(*out, first, names);
}

// The ranks are set, or something went wrong.
static Error end(Tokenizer **out, int first, Error error) {
    if (error.code == EXIT_OK) {
        error = bpe_from_ranks(*out, first);
    }
    if (error.code != EXIT_OK) {
        tokenizer_free(*out);
        *out = NULL;
    } else {
        tokenizer_finish(*out);
    }
    return error;
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
    error = begin(out, CUT_TEKKEN, (int)first, text_lines_count(ranks, size, VOCAB_MOST / 2),
                  names);
    if (error.code == EXIT_OK) {
        error = read_ranks(*out, (int32_t)first, ranks, size);
    }
    return end(out, (int32_t)first, error);
}

typedef struct {
    int64_t size, specials; // ids in all, and special ones, which come first
    Splitter splitter;
} TekkenConfig;

static Error read_config(TekkenConfig *out, const json_t *root) {
    const json_t *config = NULL;
    const char *pattern = "";
    Error error = json_member_object(root, "config", true, &config);
    if (error.code == EXIT_OK) {
        error = json_member_text(config, "pattern", true, &pattern);
    }
    if (error.code == EXIT_OK) {
        error = json_member_int(config, "default_num_special_tokens", true, 0, 65536,
                                &out->specials);
    }
    if (error.code == EXIT_OK) {
        error = json_member_int(config, "default_vocab_size", true, out->specials, VOCAB_MOST,
                                &out->size);
    }
    out->splitter = splitter_from_regex(pattern);
    if (error.code == EXIT_OK && (out->splitter == CUT_COUNT || out->splitter == CUT_CLIP)) {
        error = BAD("config.pattern '%.100s' is not supported", pattern);
    }
    return error;
}

// {"name": id} of special_tokens, or of those that files before it had; caller drops the reference.
static Error special_names_new(json_t **names, const json_t *root) {
    static const char *const implied[] = {
        "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
        "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]",
        "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
        "[TOOL_CONTENT]"};
    const json_t *items = NULL;
    Error error = json_member_array(root, "special_tokens", false, &items);
    *names = json_object();
    for (int i = 0; !items && i < (int)(sizeof implied / sizeof *implied); i++) {
        json_object_set_new(*names, implied[i], json_integer(i));
    }
    for (size_t i = 0; i < json_array_size(items) && error.code == EXIT_OK; i++) {
        const char *name = "";
        int64_t rank = 0;
        error = json_member_text(json_array_get(items, i), "token_str", true, &name);
        if (error.code == EXIT_OK) {
            error = json_member_int(json_array_get(items, i), "rank", true, 0, VOCAB_MOST, &rank);
        }
        if (error.code == EXIT_OK && json_object_get(*names, name)) {
            error = BAD("special token '%.40s' is there twice", name);
        }
        if (error.code == EXIT_OK) {
            json_object_set_new(*names, name, json_integer(rank));
        }
    }
    return error;
}

static Error read_entry(Tokenizer *tok, const json_t *entry, int64_t first) {
    const char *base64 = "";
    int64_t rank = 0;
    Error error = json_member_text(entry, "token_bytes", true, &base64);
    if (error.code == EXIT_OK) {
        error = json_member_int(entry, "rank", true, 0, VOCAB_MOST, &rank);
    }
    return error.code == EXIT_OK ? put_rank(tok, first + rank, base64, strlen(base64)) : error;
}

Error tokenizer_from_tekken(Tokenizer **out, const json_t *root) {
    *out = NULL;
    TekkenConfig config = {0};
    const json_t *vocab = NULL;
    json_t *names = NULL;
    Error error = read_config(&config, root);
    if (error.code == EXIT_OK) {
        error = json_member_array(root, "vocab", true, &vocab);
    }
    if (error.code == EXIT_OK) {
        error = special_names_new(&names, root);
    }
    const size_t count = (size_t)(config.size - config.specials);
    if (error.code == EXIT_OK && json_array_size(vocab) < count) {
        error = BAD("vocab has %zu tokens, config wants %zu", json_array_size(vocab), count);
    }
    if (error.code == EXIT_OK) {
        error = begin(out, config.splitter, (int)config.specials, count, names);
    }
    for (size_t i = 0; i < count && error.code == EXIT_OK; i++) { // those behind are not used
        error = read_entry(*out, json_array_get(vocab, i), config.specials);
    }
    json_decref(names);
    return end(out, (int)config.specials, error);
}
