// fuzz_jsonl: JSON by lines, with bad ones refused and with bad ones passed over.
#include "fuzz.h"
#include "host/jsonl.h"

static bool read_all(const uint8_t *data, size_t size, bool is_utf8_strict, int max_bad_lines) {
    Jsonl reader;
    jsonl_begin(&reader, "fuzz.jsonl", data, size);
    reader.is_utf8_strict = is_utf8_strict;
    reader.max_bad_lines = max_bad_lines;
    json_t *row = NULL;
    Error error;
    size_t rows = 0;
    while ((error = jsonl_next(&reader, &row)).code == EXIT_OK && row) {
        CHECK(json_is_object(row), "a row that is no object");
        json_decref(row);
        rows++;
    }
    CHECK(rows == reader.rows, "%zu rows, the reader says %zu", rows, reader.rows);
    jsonl_end(&reader);
    return fuzz_accepts(error);
}

FUZZ(jsonl) {
    read_all(data, size, false, 1 << 30);
    read_all(data, size, false, 0);
    return read_all(data, size, true, 0);
}
