// jsonl: lines cleaned in one pass, then parsed; see jsonl.h.
#include "jsonl.h"

#include <stdlib.h>
#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; // U+FFFD

void jsonl_begin(Jsonl *reader, const char *name, const void *data, size_t size) {
    *reader = (Jsonl){.name = name, .data = data, .at = data, .end = (const uint8_t *)data + size};
    if (size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) {
        reader->at += 3;
    }
}

// ---- cleaning ----
// Value of the \uXXXX escape at p, or -1.
static int escape_value(const uint8_t *p, const uint8_t *end) {
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u') {
        return -1;
    }
    int value = 0;
    for (int i = 2; i < 6; i++) {
        const int c = p[i] | 0x20;
        const int digit = p[i] >= '0' && p[i] <= '9' ? p[i] - '0'
                          : c >= 'a' && c <= 'f'     ? c - 'a' + 10
                                                     : -1;
        if (digit < 0) {
            return -1;
        }
        value = value << 4 | digit;
    }
    return value;
}

// Bytes at p, inside a string, that go together: an escape (with both halves of a pair) or a
// character. *is_bad: they cannot stand in a C string of UTF-8 and are to be replaced.
static size_t text_unit(const uint8_t *p, const uint8_t *end, bool *is_bad) {
    *is_bad = false;
    const int value = escape_value(p, end);
    if (value >= 0) {
        const int low = value >= 0xd800 && value < 0xdc00 ? escape_value(p + 6, end) : -1;
        if (low >= 0xdc00 && low < 0xe000) {
            return 12;
        }
        *is_bad = value == 0 || (value >= 0xd800 && value < 0xe000);
        return 6;
    }
    if (*p == '\\') {
        return end - p >= 2 && p[1] < 0x80 ? 2 : 1;
    }
    int bad;
    const int length = utf8_length(p, end, &bad);
    *is_bad = length == 0 || *p == 0;
    return (size_t)(length ? length : bad);
}

// A word of Python's JSON at p, outside a string, that JSON does not know; its length or 0.
static size_t odd_number(const uint8_t *p, const uint8_t *end) {
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    for (int i = 0; i < 3; i++) {
        const size_t length = strlen(words[i]);
        if ((size_t)(end - p) >= length && memcmp(p, words[i], length) == 0) {
            return length;
        }
    }
    return 0;
}

// Copies the line to the scratch and mends it; returns the length there. The worst growth is a bad
// byte (1) to U+FFFD (3), or NaN (3) to null (4).
static size_t clean(Jsonl *reader, const uint8_t *p, const uint8_t *end, size_t *texts,
                    size_t *numbers) {
    const size_t need = 3 * (size_t)(end - p) + 1;
    if (need > reader->room) {
        reader->room = need;
        reader->scratch = xrealloc(reader->scratch, need, 1);
    }
    char *out = reader->scratch;
    bool in_string = false;
    while (p < end) {
        size_t length = 1;
        if (in_string && *p < 0x80 && *p != '\\' && *p != 0) { // nearly every byte
            in_string = *p != '"';
        } else if (in_string) {
            bool is_bad;
            length = text_unit(p, end, &is_bad);
            if (is_bad) {
                memcpy(out, replacement, 3);
                out += 3;
                p += length;
                ++*texts;
                continue;
            }
        } else if (*p == 'N' || *p == 'I' || *p == '-') {
            length = odd_number(p, end);
            if (length) {
                memcpy(out, "null", 4);
                out += 4;
                p += length;
                ++*numbers;
                continue;
            }
            length = 1;
        } else {
            in_string = *p == '"';
        }
        memcpy(out, p, length);
        out += length;
        p += length;
    }
    return (size_t)(out - reader->scratch);
}

// ---- lines ----
static Error parse_line(Jsonl *reader, const uint8_t *start, const uint8_t *stop, json_t **row) {
    const size_t length = (size_t)(stop - start);
    if (length > JSONL_MAX_LINE) {
        return error_at(EXIT_BAD_DATA, reader->line, "a line of %zu bytes; 16 MiB are allowed",
                        length);
    }
    size_t texts = 0, numbers = 0;
    const size_t size = clean(reader, start, stop, &texts, &numbers);
    if (texts && reader->is_utf8_strict) {
        return error_at(EXIT_BAD_DATA, reader->line,
                        "text that is not UTF-8; convert it or set data.non_utf8=replace");
    }
    Error error = json_parse_new(row, reader->scratch, size);
    if (error.code != EXIT_OK) {
        const char *column = strstr(error.text, "column"); // its own line number is always 1
        return error_at(error.code, reader->line, "%s", column ? column : error.text);
    }
    if (!json_is_object(*row)) {
        error = error_at(EXIT_BAD_DATA, reader->line, "an object {...} is wanted, got %s",
                         json_type_name(*row));
        json_decref(*row);
        *row = NULL;
        return error;
    }
    reader->replaced_texts += texts;
    reader->replaced_numbers += numbers;
    return error_none();
}

static bool is_blank(const uint8_t *p, const uint8_t *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r')) {
        p++;
    }
    return p == end;
}

Error jsonl_next(Jsonl *reader, json_t **row) {
    *row = NULL;
    while (reader->at < reader->end) {
        const uint8_t *start = reader->at;
        const uint8_t *newline = memchr(start, '\n', (size_t)(reader->end - start));
        const uint8_t *stop = newline ? newline : reader->end;
        reader->at = newline ? newline + 1 : reader->end;
        reader->line++;
        reader->line_start = (size_t)(start - reader->data);
        if (is_blank(start, stop)) {
            continue;
        }
        const Error error = parse_line(reader, start, stop, row);
        if (error.code == EXIT_OK) {
            reader->rows++;
            return error;
        }
        reader->bad_lines++;
        if (reader->bad_lines > (size_t)reader->max_bad_lines) {
            return error;
        }
        reader->last_bad = error;
    }
    return error_none();
}

void jsonl_end(Jsonl *reader) {
    if (reader->last_bad.code != EXIT_OK) {
        LOG(WARN, "%s:%zu: %zu bad lines were skipped, the last one: %s", reader->name,
            reader->last_bad.offset, reader->bad_lines, reader->last_bad.text);
    }
    if (reader->replaced_texts) {
        LOG(WARN, "%s: %zu places that are not UTF-8 became U+FFFD", reader->name,
            reader->replaced_texts);
    }
    if (reader->replaced_numbers) {
        LOG(WARN, "%s: %zu numbers NaN or Infinity became null", reader->name,
            reader->replaced_numbers);
    }
    free(reader->scratch);
    reader->scratch = NULL;
}
