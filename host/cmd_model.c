// cmd_model: jomed model tokenize.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jsonl.h"
#include "tokenizer_files.h"
#include "verbs.h"

static const char *model_dir(const Config *config) {
    if (!config->model.dir[0]) {
        die(EXIT_CONFIG, "model.dir: not set; name the folder of the model");
    }
    return config->model.dir;
}

// ---- tokenize ----
static char *read_stdin_new(size_t *size) {
    size_t room = 1 << 16;
    char *text = xmalloc(room, 1);
    *size = 0;
    for (size_t got; (got = fread(text + *size, 1, room - *size, stdin)) > 0;) {
        *size += got;
        if (*size == room) {
            room *= 2;
            text = xrealloc(text, room, 1);
        }
    }
    if (ferror(stdin)) {
        die(EXIT_IO, "standard input: %s", strerror(errno));
    }
    return text;
}

static void print_ids(const char **comma, const int32_t *ids, int n) {
    for (int i = 0; i < n; i++, *comma = ", ") {
        printf("%s%d", *comma, (int)ids[i]);
    }
}

static void tokenize_text(const Config *config, const Tokenizer *tok, const char *text) {
    const size_t size = strlen(text);
    int (*const encode)(const Tokenizer *, const char *, size_t, int32_t *, int) =
        config->tokenize.special ? tokenizer_encode_special : tokenizer_encode;
    const int n = encode(tok, text, size, NULL, 0);
    int32_t *ids = xmalloc((size_t)n + 1, sizeof *ids);
    encode(tok, text, size, ids, n);
    const char *comma = "";
    printf("{\"ids\": [");
    print_ids(&comma, tok->before, config->tokenize.around ? tok->before_count : 0);
    print_ids(&comma, ids, n);
    print_ids(&comma, tok->after, config->tokenize.around ? tok->after_count : 0);
    puts("]}");
    free(ids);
}

static void untokenize(const Config *config, const Tokenizer *tok, const json_t *row, size_t line) {
    const json_t *items = json_object_get(row, "ids");
    const size_t n = json_array_size(items);
    int32_t *ids = xmalloc(n + 1, sizeof *ids);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(items, i);
        const json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || id >= tok->vocab) {
            die(EXIT_BAD_DATA, "standard input:%zu: item %zu of ids is no integer from 0 to %d", line,
                i, tok->vocab - 1);
        }
        ids[i] = (int32_t)id;
    }
    size_t size;
    char *text = tokenizer_decode_new(
        tok, ids, (int)n, config->tokenize.special ? DECODE_SPECIAL : DECODE_TEXT, &size);
    json_t *value = json_stringn(text, size); // may hold NUL
    json_t *out = json_pack("{so}", "text", value);
    CHECK(out, "text of %zu bytes is not UTF-8", size);
    json_dumpf(out, stdout, 0);
    puts("");
    json_decref(out);
    free(text);
    free(ids);
}

int cmd_model_tokenize(const Config *config) {
    Tokenizer *tok;
    error_die(model_dir(config), tokenizer_open_new(&tok, model_dir(config)));
    size_t size;
    char *input = read_stdin_new(&size);
    Jsonl reader;
    jsonl_begin(&reader, "standard input", input, size);
    for (json_t *row;;) {
        error_die(reader.name, jsonl_next(&reader, &row));
        if (!row) {
            break;
        }
        const char *text = json_string_value(json_object_get(row, "text"));
        if (text) {
            tokenize_text(config, tok, text);
        } else if (json_is_array(json_object_get(row, "ids"))) {
            untokenize(config, tok, row, reader.line);
        } else {
            die(EXIT_BAD_DATA, "standard input:%zu: neither a text 'text' nor an array 'ids'",
                reader.line);
        }
        json_decref(row);
    }
    jsonl_end(&reader);
    free(input);
    tokenizer_free(tok);
    return EXIT_OK;
}
