// jsonl: one JSON object per line, as corpora and predictions are written by many hands.
//
// Fine: blank lines, CRLF, a byte order mark at the start, no newline at the end. NaN, Infinity and
// -Infinity (Python writes them) read as null and are counted. Text that is not UTF-8, lone \uD800
// escapes and \u0000 become U+FFFD and are counted, or make the line bad. A bad line (also one over
// 16 MiB, or one that is no object) is an error until max_bad_lines allows to skip it.
// Left out: what the members mean (dataset).
#ifndef JOMED_HOST_JSONL_H
#define JOMED_HOST_JSONL_H

#include "json.h"

enum { JSONL_MAX_LINE = 16 << 20 }; // bytes

typedef struct {
    const char *name; // of the file, for warnings
    const uint8_t *data, *end, *at;
    bool is_utf8_strict; // non-UTF-8 makes a line bad
    int max_bad_lines;
    size_t line;       // number of the line handed out last, from 1
    size_t line_start; // its first byte, from the start of the file
    // Counts so far.
    size_t rows, bad_lines, replaced_texts, replaced_numbers;
    Error last_bad; // the last line that was skipped: offset = line
    char *scratch;  // the line, cleaned
    size_t room;
} Jsonl;

// Starts at the first line. data (size) and name are borrowed until jsonl_end.
void jsonl_begin(Jsonl *reader, const char *name, const void *data, size_t size);
// The next object as a new reference, NULL at the end. Error: offset = line (so that error_die
// prints "file:line: ..."); the text names the column.
Error jsonl_next(Jsonl *reader, json_t **row);
// Says (LOG) what was skipped and replaced, and frees the scratch.
void jsonl_end(Jsonl *reader);

#endif
