// npy: the header's small grammar, and its writer; see npy.h.
#include "npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "kernels/dtype.h"

enum { HEADER_LIMIT = 1 << 16, NPY_ALIGN = 64 };

#define TYPE_ROW(enumerator, descr, size) {descr, size},
static const struct {
    const char *descr;
    size_t size;
} types[NPY_TYPE_COUNT] = {NPY_TYPES(TYPE_ROW)};

const char *npy_type_name(NpyType type) { return types[type].descr; }

void npy_free(NpyArray *array) {
    free(array->owned);
    *array = (NpyArray){0};
}

#define LOADER(type)                              \
    static double load_##type(const uint8_t *p) { \
        type value;                               \
        memcpy(&value, p, sizeof value);          \
        return (double)value;                     \
    }
LOADER(int8_t)
LOADER(uint16_t) LOADER(int16_t) LOADER(int32_t) LOADER(int64_t) LOADER(float) LOADER(double)

    double npy_number(const NpyArray *array, size_t i) {
    const uint8_t *p = array->data + i * types[array->type].size;
    f16 half;
    switch (array->type) {
    case NPY_U1:
    case NPY_BOOL: return *p;
    case NPY_I1: return load_int8_t(p);
    case NPY_U2: return load_uint16_t(p);
    case NPY_I2: return load_int16_t(p);
    case NPY_I4: return load_int32_t(p);
    case NPY_I8: return load_int64_t(p);
    case NPY_F2: memcpy(&half, p, 2); return f16_to_float(half);
    case NPY_F4: return load_float(p);
    default: return load_double(p);
    }
}

// ---- the header of .npy ----
// {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } with blanks; nothing else is
// understood.
typedef struct {
    const char *at, *end;
} Cursor;

static void skip_blanks(Cursor *c) {
    while (c->at < c->end && strchr(" \t\n\r", *c->at) && *c->at) {
        c->at++;
    }
}

static bool take(Cursor *c, const char *word) {
    skip_blanks(c);
    const size_t length = strlen(word);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0) {
        return false;
    }
    c->at += length;
    return true;
}

// A quoted text of at most 31 characters without escapes.
static bool take_text(Cursor *c, char out[32]) {
    skip_blanks(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"')) {
        return false;
    }
    const char quote = *c->at++;
    size_t length = 0;
    while (c->at < c->end && *c->at != quote && *c->at != '\\' && length < 31) {
        out[length++] = *c->at++;
    }
    out[length] = '\0';
    return c->at < c->end && *c->at++ == quote;
}

static const char *take_shape(Cursor *c, NpyArray *out) {
    if (!take(c, "(")) {
        return "the shape is no tuple";
    }
    for (bool needs_comma = false; !take(c, ")"); needs_comma = true) {
        if (needs_comma && !take(c, ",")) {
            return "the shape is no tuple of integers";
        }
        if (needs_comma && take(c, ")")) {
            return NULL;
        }
        skip_blanks(c);
        size_t value = 0;
        const char *start = c->at;
        while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
            if (!size_mul(value, 10, &value) ||
                !size_add(value, (size_t)(*c->at++ - '0'), &value)) {
                return "a dimension overflows";
            }
        }
        if (c->at == start) {
            return "a dimension is no integer >= 0";
        }
        if (out->rank == NPY_MAX_RANK) {
            return "more than 8 dimensions";
        }
        out->shape[out->rank++] = value;
    }
    return NULL;
}

static const char *take_descr(Cursor *c, NpyArray *out, char descr[32]) {
    if (!take_text(c, descr)) {
        return "a structured dtype; save plain arrays";
    }
    for (int i = 0; i < NPY_TYPE_COUNT; i++) {
        if (strcmp(types[i].descr, descr) == 0) {
            out->type = (NpyType)i;
            return NULL;
        }
    }
    if (strchr(descr, 'O')) {
        return "Python objects (pickle) are never read; save plain arrays";
    }
    return "unknown dtype; |u1 |i1 |b1 <u2 <i2 <i4 <i8 <f2 <f4 <f8 are read";
}

// What is wrong with the header text, or NULL and type, rank, shape, count, bytes filled.
static const char *parse_dict(NpyArray *out, const char *text, size_t size, char descr[32]) {
    Cursor c = {text, text + size};
    bool has_descr = false, has_order = false, has_shape = false;
    if (!take(&c, "{")) {
        return "the header is no dict";
    }
    while (!take(&c, "}")) {
        char key[32];
        const char *what = NULL;
        if (!take_text(&c, key) || !take(&c, ":")) {
            return "the header is no dict";
        }
        if (strcmp(key, "descr") == 0 && !has_descr) {
            has_descr = true;
            what = take_descr(&c, out, descr);
        } else if (strcmp(key, "fortran_order") == 0 && !has_order) {
            has_order = true;
            if (!take(&c, "False")) {
                what = "Fortran order; save numpy.ascontiguousarray(x)";
            }
        } else if (strcmp(key, "shape") == 0 && !has_shape) {
            has_shape = true;
            what = take_shape(&c, out);
        } else {
            what = "an unknown or repeated key in the header";
        }
        if (what) {
            return what;
        }
        if (!take(&c, ",")) {
            if (!take(&c, "}")) {
                return "the header is no dict";
            }
            break;
        }
    }
    skip_blanks(&c);
    if (!has_descr || !has_order || !has_shape || c.at != c.end) {
        return "the header wants descr, fortran_order and shape, and nothing else";
    }
    out->count = 1;
    for (int i = 0; i < out->rank; i++) {
        if (!size_mul(out->count, out->shape[i], &out->count)) {
            return "the shape's size overflows";
        }
    }
    return size_mul(out->count, types[out->type].size, &out->bytes) ? NULL
                                                                    : "the shape's size overflows";
}

Error npy_header_extent(const uint8_t *head, size_t size, size_t *begin, size_t *length) {
    if (size < 10 || memcmp(head, "\x93NUMPY", 6) != 0) {
        return error_at(EXIT_BAD_DATA, 0, "no .npy: the magic bytes are missing");
    }
    if (head[6] < 1 || head[6] > 3) {
        return error_at(EXIT_BAD_DATA, 6, "version %d of .npy; 1 to 3 are known", head[6]);
    }
    *begin = head[6] == 1 ? 10 : 12;
    if (size < *begin) {
        return error_at(EXIT_BAD_DATA, size, "a .npy that ends in its header");
    }
    *length = head[6] == 1 ? (size_t)(head[8] | head[9] << 8)
                           : (size_t)head[8] | (size_t)head[9] << 8 | (size_t)head[10] << 16 |
                                 (size_t)head[11] << 24;
    if (*length > HEADER_LIMIT) {
        return error_at(EXIT_BAD_DATA, 8, "a header of %zu bytes", *length);
    }
    return error_none();
}

Error npy_header_parse(NpyArray *out, const char *text, size_t size, size_t place) {
    char descr[32] = "";
    const char *what = parse_dict(out, text, size, descr);
    if (what) {
        return error_at(EXIT_BAD_DATA, place, "%s%s%s%s", what, descr[0] ? " (dtype '" : "", descr,
                        descr[0] ? "')" : "");
    }
    return error_none();
}

Error npy_parse(NpyArray *out, const void *data, size_t size) {
    *out = (NpyArray){0};
    const uint8_t *bytes = data;
    size_t begin = 0, length = 0;
    NpyArray array = {0};
    Error error = npy_header_extent(bytes, size, &begin, &length);
    if (error.code != EXIT_OK) {
        return error;
    }
    if (length > size - begin) {
        return error_at(EXIT_BAD_DATA, size, "a .npy that ends in its header");
    }
    error = npy_header_parse(&array, (const char *)bytes + begin, length, begin);
    if (error.code != EXIT_OK) {
        return error;
    }
    if (array.bytes != size - begin - length) {
        return error_at(EXIT_BAD_DATA, begin + length, "%zu bytes of data, the shape wants %zu",
                        size - begin - length, array.bytes);
    }
    array.data = bytes + begin + length;
    *out = array;
    return error;
}

Error npy_write(const char *path, NpyType type, int rank, const size_t *shape, const void *data) {
    char header[512];
    size_t used = 10, bytes = types[type].size;
    CHECK(rank <= NPY_MAX_RANK, "rank=%d", rank);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    used +=
        (size_t)snprintf(header + used, 400, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                         types[type].descr);
    for (int i = 0; i < rank; i++) {
        CHECK(size_mul(bytes, shape[i], &bytes), "shape[%d]=%zu", i, shape[i]);
        used += (size_t)snprintf(header + used, 32, i ? " %zu," : "%zu,", shape[i]);
    }
    used -= rank > 1; // Python writes (3,) but (2, 3)
    used += (size_t)snprintf(header + used, 8, "), }");
    while ((used + 1) % NPY_ALIGN != 0) {
        header[used++] = ' ';
    }
    header[used++] = '\n';
    header[8] = (char)((used - 10) & 255);
    header[9] = (char)((used - 10) >> 8);
    FileWriter writer;
    const Error error = file_writer_open(&writer, path);
    if (error.code != EXIT_OK) {
        return error;
    }
    file_writer_add(&writer, header, used);
    file_writer_add(&writer, data, bytes);
    return file_writer_commit(&writer);
}
