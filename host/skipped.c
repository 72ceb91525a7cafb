// skipped: see skipped.h.
#include "skipped.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "jsonl.h"

#define NAME "skipped.jsonl"

Error skipped_save(const char *dir, const Dataset *corpus) {
    char *path = file_join_new(dir, NAME);
    FileWriter writer;
    int count = 0;
    Error error = file_make_directories(dir);
    if (!error.code) {
        error = file_writer_open(&writer, path);
    }
    for (int i = 0; !error.code && i < corpus->n; i++) {
        if (corpus->policy.drops_bad && corpus->is_bad[i]) {
            char *id = json_quote_new(corpus->records[i].id);
            char *image = json_quote_new(corpus->records[i].path);
            file_writer_print(&writer, "{\"row\": %d, \"id\": %s, \"path\": %s}\n", i, id, image);
            free(id);
            free(image);
            count++;
        }
    }
    if (!error.code && count) {
        error = file_writer_commit(&writer);
    } else if (!error.code) {
        file_writer_abandon(&writer);
        error = file_remove_tree(path);
    }
    free(path);
    return error;
}

static Error mark_row(const json_t *object, Dataset *corpus, int64_t *last) {
    const char *id = "";
    int64_t row = -1;
    Error error = json_member_int(object, "row", true, *last + 1, INT32_MAX, &row);
    if (!error.code) {
        error = json_member_text(object, "id", true, &id);
    }
    if (!error.code && (row >= corpus->n || strcmp(corpus->records[row].id, id) != 0)) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                         "the corpus has no row %" PRId64 " with id '%.60s'; run jomed index build",
                         row, id);
    }
    if (!error.code) {
        corpus->is_bad[row] = 1;
        *last = row;
    }
    return error;
}

Error skipped_parse(const void *text, size_t size, Dataset *corpus) {
    Jsonl reader;
    jsonl_begin(&reader, NAME, text, size);
    int64_t last = -1;
    json_t *object;
    Error error = jsonl_next(&reader, &object);
    while (!error.code && object) {
        error = mark_row(object, corpus, &last);
        error.offset = error.code ? reader.line : error.offset;
        json_decref(object);
        if (!error.code) {
            error = jsonl_next(&reader, &object);
        }
    }
    jsonl_end(&reader);
    return error;
}

Error skipped_load(const char *dir, Dataset *corpus) {
    char *path = file_join_new(dir, NAME);
    FileBytes bytes = {0};
    Error error = error_none();
    if (file_exists(path)) {
        error = file_map_new(&bytes, path);
    }
    if (!error.code) {
        error = skipped_parse(bytes.data, bytes.size, corpus);
        if (error.code) {
            error = error_at(error.code, ERROR_NOWHERE, NAME ":%zu: %s", error.offset, error.text);
        }
    }
    file_bytes_free(&bytes);
    free(path);
    return error;
}
