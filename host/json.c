// json: a thin layer over jansson; see json.h.
#define _POSIX_C_SOURCE 200809L
#include "json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

// ---- reading ----
static Error parse(json_t **out, const void *text, size_t size, size_t flags) {
    *out = NULL;
    const char *zero = size ? memchr(text, 0, size) : NULL;
    if (zero) { // jansson would accept one at the very end
        return error_at(EXIT_BAD_DATA, (size_t)(zero - (const char *)text), "a zero byte in JSON");
    }
    json_error_t where;
    *out = json_loadb(text, size, flags | JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
    if (!*out) {
        const size_t at = where.position < 0 ? 0 : (size_t)where.position;
        return error_at(EXIT_BAD_DATA, at, "line %d column %d: %s", where.line, where.column,
                        where.text);
    }
    return error_none();
}

Error json_parse_new(json_t **out, const void *text, size_t size) {
    return parse(out, text, size, 0);
}

Error json_parse_nul_new(json_t **out, const void *text, size_t size) {
    return parse(out, text, size, JSON_ALLOW_NUL);
}

Error json_read_new(json_t **out, const char *path, size_t limit) {
    *out = NULL;
    FileBytes bytes;
    Error error = file_read_new(&bytes, path, limit);
    if (error.code == EXIT_OK) {
        error = json_parse_new(out, bytes.data, bytes.size);
        error.offset = ERROR_NOWHERE; // line and column are in the text
        file_bytes_free(&bytes);
    }
    return error;
}

// ---- members ----
const char *json_type_name(const json_t *value) {
    if (!value) {
        return "nothing";
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a text";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_NULL: return "null";
    default: return "a boolean";
    }
}

// The member when it is there and of the wanted kind; else NULL and, where it matters, the error.
static const json_t *member(const json_t *object, const char *name, bool is_required,
                            bool is_wanted_kind(const json_t *), const char *wanted, Error *error) {
    const json_t *value = json_object_get(object, name); // NULL too when object is none
    *error = error_none();
    if (value && is_wanted_kind(value)) {
        return value;
    }
    if (!value && is_required) {
        *error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member '%.60s' is missing, %s is wanted",
                          name, wanted);
    } else if (value && (is_required || !json_is_null(value))) {
        *error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member '%.60s' wants %s, got %s", name,
                          wanted, json_type_name(value));
    }
    return NULL;
}

static bool is_text(const json_t *value) { return json_is_string(value); }
static bool is_integer(const json_t *value) { return json_is_integer(value); }
static bool is_number(const json_t *value) { return json_is_number(value); }
static bool is_boolean(const json_t *value) { return json_is_boolean(value); }
static bool is_object(const json_t *value) { return json_is_object(value); }
static bool is_array(const json_t *value) { return json_is_array(value); }

Error json_member_text(const json_t *object, const char *name, bool is_required, const char **out) {
    Error error;
    const json_t *value = member(object, name, is_required, is_text, "a text", &error);
    if (value && strlen(json_string_value(value)) < json_string_length(value)) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member '%.60s' holds a NUL character", name);
    }
    if (value) {
        *out = json_string_value(value);
    }
    return error;
}

Error json_member_int(const json_t *object, const char *name, bool is_required, int64_t low,
                      int64_t high, int64_t *out) {
    Error error;
    const json_t *value = member(object, name, is_required, is_integer, "an integer", &error);
    if (value) {
        const int64_t got = json_integer_value(value);
        if (got < low || got > high) {
            return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                            "member '%.60s': %lld is outside %lld .. %lld", name, (long long)got,
                            (long long)low, (long long)high);
        }
        *out = got;
    }
    return error;
}

Error json_member_number(const json_t *object, const char *name, bool is_required, double *out) {
    Error error;
    const json_t *value = member(object, name, is_required, is_number, "a number", &error);
    if (value) {
        *out = json_number_value(value);
    }
    return error;
}

Error json_member_bool(const json_t *object, const char *name, bool is_required, bool *out) {
    Error error;
    const json_t *value = member(object, name, is_required, is_boolean, "true or false", &error);
    if (value) {
        *out = json_is_true(value);
    }
    return error;
}

Error json_member_object(const json_t *object, const char *name, bool is_required,
                         const json_t **out) {
    Error error;
    const json_t *value = member(object, name, is_required, is_object, "an object", &error);
    if (value) {
        *out = value;
    }
    return error;
}

Error json_member_array(const json_t *object, const char *name, bool is_required,
                        const json_t **out) {
    Error error;
    const json_t *value = member(object, name, is_required, is_array, "an array", &error);
    if (value) {
        *out = value;
    }
    return error;
}

// ---- UTF-8 ----
int utf8_length(const uint8_t *p, const uint8_t *end, int *bad) {
    *bad = 1;
    if (*p < 0x80) {
        return 1;
    }
    // Bytes to come, and the range of the next one, which keeps out overlong forms, surrogates and
    // what lies behind U+10FFFF (Unicode 15, table 3-7).
    const int more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
    uint8_t low = 0x80, high = 0xbf;
    if (*p < 0xc2 || *p > 0xf4) {
        return 0;
    }
    if (*p == 0xe0) {
        low = 0xa0;
    } else if (*p == 0xed) {
        high = 0x9f;
    } else if (*p == 0xf0) {
        low = 0x90;
    } else if (*p == 0xf4) {
        high = 0x8f;
    }
    for (int i = 1; i <= more; i++) {
        if (p + i >= end || p[i] < low || p[i] > high) {
            *bad = i;
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return more + 1;
}

// ---- writing ----
char *json_quote_new(const char *text) {
    const size_t size = strlen(text);
    char *out = xmalloc(6 * size + 3, 1), *at = out; // \u00XX is the longest replacement of a byte
    const uint8_t *p = (const uint8_t *)text, *const end = p + size;
    *at++ = '"';
    while (p < end) {
        int bad;
        const int length = utf8_length(p, end, &bad);
        if (length == 0) {
            memcpy(at, "\xef\xbf\xbd", 3);
            at += 3;
            p += bad;
        } else if (*p == '"' || *p == '\\') {
            *at++ = '\\';
            *at++ = (char)*p++;
        } else if (*p < 0x20) {
            at += sprintf(at, "\\u%04x", *p++);
        } else {
            memcpy(at, p, (size_t)length);
            at += length;
            p += length;
        }
    }
    *at++ = '"';
    *at = '\0';
    return out;
}

char *json_number(char out[JSON_NUMBER_ROOM], double value) {
    if (!isfinite(value)) {
        return strcpy(out, "null");
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, JSON_NUMBER_ROOM, "%.*g", digits, value);
        if (strtod(out, NULL) == value) {
            break;
        }
    }
    return out;
}
