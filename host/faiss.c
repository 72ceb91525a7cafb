// faiss: the two layouts of flat indexes; see faiss.h.
#include "faiss.h"

#include <string.h>

enum { HEADER_BYTES = 33, MAX_WIDTH = 1 << 20, DUMMY = 1 << 20 };

// ---- reading ----
typedef struct {
    const uint8_t *data;
    size_t size, at;
} Cursor;

// Copies the next n bytes; false at the end.
static bool take(Cursor *c, void *out, size_t n) {
    if (n > c->size - c->at) {
        return false;
    }
    memcpy(out, c->data + c->at, n);
    c->at += n;
    return true;
}

static Error bad(const Cursor *c, const char *what) {
    return error_at(EXIT_BAD_DATA, c->at, "%s", what);
}

// The four letters are behind the cursor already.
static Error read_header(Cursor *c, int32_t *d, int64_t *n) {
    int64_t dummy;
    uint8_t is_trained;
    int32_t metric;
    if (!take(c, d, 4) || !take(c, n, 8) || !take(c, &dummy, 8) || !take(c, &dummy, 8) ||
        !take(c, &is_trained, 1) || !take(c, &metric, 4)) {
        return bad(c, "the index ends in its header");
    }
    if (*d < 1 || *d > MAX_WIDTH) {
        return error_at(EXIT_BAD_DATA, c->at, "width %d; 1 to 1048576 are possible", (int)*d);
    }
    if (*n < 0) {
        return error_at(EXIT_BAD_DATA, c->at, "%lld rows", (long long)*n);
    }
    if (is_trained > 1) {
        return bad(c, "the flag is_trained is neither 0 nor 1");
    }
    if (metric != 0) {
        return error_at(EXIT_BAD_DATA, c->at, "metric %d; only inner product (0) is read",
                        (int)metric);
    }
    return error_none();
}

static Error read_flat(Cursor *c, FaissIndex *out) {
    int32_t d = 0;
    int64_t n = 0;
    uint64_t floats;
    size_t want, bytes;
    const Error error = read_header(c, &d, &n);
    if (error.code != EXIT_OK) {
        return error;
    }
    if (!take(c, &floats, 8)) {
        return bad(c, "the index ends in its header");
    }
    if (!size_mul((size_t)n, (size_t)d, &want) || floats != want || !size_mul(want, 4, &bytes)) {
        return error_at(EXIT_BAD_DATA, c->at, "%llu numbers for %lld rows of width %d",
                        (unsigned long long)floats, (long long)n, (int)d);
    }
    if (bytes > c->size - c->at) {
        return error_at(EXIT_BAD_DATA, c->at, "%zu bytes of rows, %zu are left; is it truncated",
                        bytes, c->size - c->at);
    }
    *out = (FaissIndex){.E = d, .M = (size_t)n, .rows = c->data + c->at};
    c->at += bytes;
    return error;
}

static Error read_ids(Cursor *c, FaissIndex *out) {
    int32_t d = 0;
    int64_t n = 0;
    uint64_t count;
    char inner[4];
    Error error = read_header(c, &d, &n);
    if (error.code != EXIT_OK) {
        return error;
    }
    if (!take(c, inner, 4) || memcmp(inner, "IxFI", 4) != 0) {
        return bad(c, "the index inside the id map is no IndexFlatIP");
    }
    error = read_flat(c, out);
    if (error.code != EXIT_OK) {
        return error;
    }
    if (out->E != d || out->M != (size_t)n) {
        return bad(c, "the id map and the index inside it differ in size");
    }
    if (!take(c, &count, 8) || count != out->M || out->M > (c->size - c->at) / 8) {
        return bad(c, "the number of ids is not the number of rows, or they are cut");
    }
    out->ids = c->data + c->at;
    c->at += 8 * out->M;
    return error;
}

Error faiss_parse(FaissIndex *out, const void *data, size_t size) {
    Cursor c = {.data = data, .size = size};
    FaissIndex index = {0};
    char kind[5] = "";
    *out = index;
    Error error;
    if (!take(&c, kind, 4)) {
        return bad(&c, "too short for a faiss index");
    }
    if (memcmp(kind, "IxFI", 4) == 0) {
        error = read_flat(&c, &index);
    } else if (memcmp(kind, "IxM2", 4) == 0 || memcmp(kind, "IxMp", 4) == 0) {
        error = read_ids(&c, &index);
    } else if (memcmp(kind, "Ix", 2) == 0 && kind[2] > ' ' && kind[3] > ' ') {
        error = error_at(EXIT_BAD_DATA, 0,
                         "index kind '%s'; IndexFlatIP and IndexIDMap2 of it are read", kind);
    } else {
        error = error_at(EXIT_BAD_DATA, 0, "no faiss index: the magic letters are missing");
    }
    if (error.code == EXIT_OK && c.at != size) {
        error = error_at(EXIT_BAD_DATA, c.at, "%zu bytes behind the index", size - c.at);
    }
    if (error.code == EXIT_OK) {
        *out = index;
    }
    return error;
}

void faiss_rows(const FaissIndex *index, float *out, size_t first, size_t count) {
    CHECK(first <= index->M && count <= index->M - first, "first=%zu count=%zu", first, count);
    const size_t row = (size_t)index->E * sizeof(float);
    memcpy(out, index->rows + first * row, count * row);
}

int64_t faiss_id(const FaissIndex *index, size_t row) {
    CHECK(row < index->M, "row=%zu", row);
    int64_t id = (int64_t)row;
    if (index->ids) {
        memcpy(&id, index->ids + 8 * row, 8);
    }
    return id;
}

// ---- writing ----
static void add_header(FaissWriter *w, const char *kind) {
    uint8_t header[4 + HEADER_BYTES], *p = header;
    const int32_t d = (int32_t)w->E, metric = 0;
    const int64_t n = (int64_t)w->M, dummy = DUMMY;
    memcpy(p, kind, 4), p += 4;
    memcpy(p, &d, 4), p += 4;
    memcpy(p, &n, 8), p += 8;
    memcpy(p, &dummy, 8), p += 8;
    memcpy(p, &dummy, 8), p += 8;
    *p++ = 1; // is_trained
    memcpy(p, &metric, 4), p += 4;
    file_writer_add(&w->file, header, (size_t)(p - header));
}

Error faiss_writer_open(FaissWriter *w, const char *path, int E, size_t M, bool has_ids) {
    CHECK(E >= 1 && E <= MAX_WIDTH, "E=%d", E);
    *w = (FaissWriter){.E = (size_t)E, .M = M, .has_ids = has_ids};
    const Error error = file_writer_open(&w->file, path);
    if (error.code != EXIT_OK) {
        return error;
    }
    if (has_ids) {
        add_header(w, "IxM2");
    }
    add_header(w, "IxFI");
    const uint64_t floats = w->M * w->E;
    file_writer_add(&w->file, &floats, 8);
    return error;
}

void faiss_writer_add(FaissWriter *w, const float *rows, size_t count) {
    CHECK(count <= w->M - w->rows, "rows=%zu of %zu, %zu more", w->rows, w->M, count);
    file_writer_add(&w->file, rows, count * w->E * sizeof(float));
    w->rows += count;
}

Error faiss_writer_commit(FaissWriter *w, const int64_t *ids) {
    CHECK(w->rows == w->M && w->has_ids == (ids != NULL), "rows=%zu of %zu", w->rows, w->M);
    if (w->has_ids) {
        const uint64_t count = w->M;
        file_writer_add(&w->file, &count, 8);
        file_writer_add(&w->file, ids, w->M * 8);
    }
    return file_writer_commit(&w->file);
}
