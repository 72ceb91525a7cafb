// clip_merges: see clip_merges.h.
#include "clip_merges.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "bpe_vocab.h"
#include "text_lines.h"

#define MAX_TEXT ((size_t)64 << 20) // bytes of the unpacked list
#define BAD(...) error_at(EXIT_BAD_DATA, ERROR_NOWHERE, __VA_ARGS__)

// ---- the list ----
enum { CLIP_MERGES = 48894, CLIP_SYMBOLS = 256 };

// The symbols of bytes: first those that stand for themselves, then the others; then all again as
// ends of words; then the results of merges; then the two special tokens.
static Error clip_symbols(Vocab *names) {
    Error error = error_none();
    int32_t id = 0;
    for (int is_moved = 0; is_moved < 2; is_moved++) {
        for (int b = 0; b < CLIP_SYMBOLS && error.code == EXIT_OK; b++) {
            char symbol[4 + 5];
            const int length = byte_symbol(symbol, (uint8_t)b);
            // U+0100 and beyond, the moved ones, begin with 0xc4 or 0xc5.
            if ((length == 2 && (uint8_t)symbol[0] >= 0xc4) != is_moved) {
                continue;
            }
            memcpy(symbol + length, "</w>", 5);
            error = vocab_put(names, id, symbol, (size_t)length, true);
            if (error.code == EXIT_OK) {
                error = vocab_put(names, CLIP_SYMBOLS + id++, symbol, (size_t)length + 4, true);
            }
        }
    }
    return error;
}

static Error clip_merges(Vocab *names, MergeList *merges, const char *text, size_t size,
                         int count) {
    TextLines lines = text_lines(text, size);
    const char *line;
    size_t length;
    Error error = error_none();
    text_lines_next(&lines, &line, &length); // the header
    for (int i = 0; i < count && error.code == EXIT_OK; i++) {
        text_lines_next(&lines, &line, &length);
        char room[256];
        const char *space = memchr(line, ' ', length);
        const size_t left = space ? (size_t)(space - line) : 0;
        if (!space || length > sizeof room) {
            return BAD("merge %d is not two tokens", i + 1);
        }
        memcpy(room, line, left);
        memcpy(room + left, space + 1, length - left - 1);
        room[length - 1] = '\0';
        error = vocab_put(names, 2 * CLIP_SYMBOLS + i, room, length - 1, true);
        if (error.code == EXIT_OK) {
            error = merge_list_add_line(merges, names, line, length);
        }
    }
    return error;
}

Error tokenizer_from_clip_merges(Tokenizer **out, const char *text, size_t size) {
    static const char *const around[] = {"<|startoftext|>", "<|endoftext|>"};
    int count = (int)text_lines_count(text, size, CLIP_MERGES + 1) - 1;
    count = count < 0 ? 0 : count;
    const int first = 2 * CLIP_SYMBOLS + count;
    Vocab names = vocab_new(first + 2);
    MergeList merges = {0};
    *out = NULL;
    Tokenizer *tok = tokenizer_new(TOKENIZER_BPE, names.count);
    Error error = clip_symbols(&names);
    if (error.code == EXIT_OK) {
        error = clip_merges(&names, &merges, text, size, count);
    }
    for (int i = 0; i < 2 && error.code == EXIT_OK; i++) {
        error = vocab_put(&names, first + i, around[i], strlen(around[i]), true);
    }
    if (error.code == EXIT_OK) {
        error = bpe_from_names(tok, &names, &merges, "</w>");
    }
    tok->splitter = CUT_CLIP;
    *tok->normalizer = (Normalizer){
        .steps = {NORMALIZE_NFC, NORMALIZE_BLANKS, NORMALIZE_LOWER}, .count = 3};
    normalizer_begin(tok->normalizer);
    for (int i = 0; i < 2 && error.code == EXIT_OK; i++) {
        error = tokenizer_add(tok, &(AddedToken){.name = (char *)around[i], .id = first + i,
                                                 .is_special = true});
    }
    tok->before[tok->before_count++] = first;
    tok->after[tok->after_count++] = first + 1;
    merge_list_free(&merges);
    vocab_free(&names);
    if (error.code != EXIT_OK) {
        tokenizer_free(tok);
        return error;
    }
    tokenizer_finish(tok);
    *out = tok;
    return error;
}

// ---- gzip ----
static Error gunzip_new(char **out, size_t *out_size, const void *packed, size_t size) {
    z_stream z = {.next_in = (Bytef *)packed, .avail_in = (uInt)size};
    size_t room = 1 << 16, used = 0;
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) {
        die(EXIT_RESOURCE, "zlib: no memory");
    }
    char *text = xmalloc(room, 1);
    int rc = Z_OK;
    while (rc == Z_OK && used < MAX_TEXT) {
        if (used == room) {
            room *= 2;
            text = xrealloc(text, room, 1);
        }
        z.next_out = (Bytef *)text + used;
        z.avail_out = (uInt)(room - used);
        rc = inflate(&z, Z_NO_FLUSH);
        used = room - z.avail_out;
    }
    inflateEnd(&z);
    if (rc != Z_STREAM_END) {
        free(text);
        return BAD("not a whole gzip file");
    }
    *out = text;
    *out_size = used;
    return error_none();
}

Error tokenizer_from_clip_gzip(Tokenizer **out, const void *packed, size_t size) {
    char *text = NULL;
    size_t text_size = 0;
    *out = NULL;
    Error error = gunzip_new(&text, &text_size, packed, size);
    if (error.code == EXIT_OK) {
        error = tokenizer_from_clip_merges(out, text, text_size);
        free(text);
    }
    return error;
}
