// keyfile: libyaml's events to flat entries; see keyfile.h.
#include "keyfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_BYTES = 1 << 20, MAX_DEPTH = 16, MAX_ENTRIES = 4096, MAX_ITEMS = 65536 };

typedef struct {
    yaml_parser_t parser;
    yaml_event_t event; // the current one; deleted by the next
    bool has_event;
    KeyFile *out;
    Error error;
} Reader;

// ---- events ----
static bool fail(Reader *r, const yaml_mark_t *mark, const char *what) {
    r->error = error_at(EXIT_CONFIG, mark->line + 1, "%zu: %s", mark->column + 1, what);
    return false;
}

static bool next(Reader *r) {
    if (r->has_event) {
        yaml_event_delete(&r->event);
        r->has_event = false;
    }
    if (!yaml_parser_parse(&r->parser, &r->event)) {
        const yaml_parser_t *p = &r->parser;
        // Encoding errors have no mark, only a byte.
        const yaml_mark_t *mark = p->error == YAML_READER_ERROR ? &p->mark : &p->problem_mark;
        return fail(r, mark, p->problem ? p->problem : "bad syntax");
    }
    r->has_event = true;
    const yaml_event_t *e = &r->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (e->type) {
    case YAML_ALIAS_EVENT:
        return fail(r, &e->start_mark, "aliases (*name) are not used here; write the value again");
    case YAML_SCALAR_EVENT:
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
        break;
    default: break;
    }
    if (anchor) {
        return fail(r, &e->start_mark, "anchors (&name) are not used here; leave it out");
    }
    return !tag || fail(r, &e->start_mark, "tags (!name) are not used here; leave it out");
}

// ---- entries ----
static bool take_scalar(Reader *r, KeyScalar *out) {
    const yaml_event_t *e = &r->event;
    const char *text = (const char *)e->data.scalar.value;
    if (strlen(text) != e->data.scalar.length) {
        return fail(r, &e->start_mark, "a zero character in a text");
    }
    *out = (KeyScalar){.text = xstrdup(text),
                       .is_quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE,
                       .line = (int)e->start_mark.line + 1,
                       .column = (int)e->start_mark.column + 1};
    return true;
}

// Takes ownership of path.
static KeyEntry *add_entry(Reader *r, char *path, const yaml_mark_t *mark) {
    KeyFile *out = r->out;
    int first_line = 0;
    for (int i = 0; i < out->count && !first_line; i++) {
        first_line = strcmp(out->entries[i].path, path) == 0 ? out->entries[i].line : 0;
    }
    if (out->count == MAX_ENTRIES) {
        fail(r, mark, "more than 4096 keys");
        free(path);
        return NULL;
    }
    if ((out->count & (out->count - 1)) == 0) { // room grows by doubling
        const size_t room = out->count ? 2 * (size_t)out->count : 1;
        out->entries = xrealloc(out->entries, room, sizeof *out->entries);
    }
    KeyEntry *entry = &out->entries[out->count++];
    *entry = (KeyEntry){.path = path, .line = (int)mark->line + 1, .column = (int)mark->column + 1,
                        .first_line = first_line};
    return entry;
}

static bool add_item(Reader *r, KeyEntry *entry) {
    if (entry->count == MAX_ITEMS) {
        return fail(r, &r->event.start_mark, "more than 65536 items in a list");
    }
    if ((entry->count & (entry->count - 1)) == 0) {
        const size_t room = entry->count ? 2 * (size_t)entry->count : 1;
        entry->items = xrealloc(entry->items, room, sizeof *entry->items);
    }
    if (!take_scalar(r, &entry->items[entry->count])) {
        return false;
    }
    entry->count++;
    return true;
}

static bool read_list(Reader *r, KeyEntry *entry) {
    entry->kind = KEY_LIST;
    for (;;) {
        if (!next(r)) {
            return false;
        }
        if (r->event.type == YAML_SEQUENCE_END_EVENT) {
            return true;
        }
        if (r->event.type != YAML_SCALAR_EVENT) {
            return fail(r, &r->event.start_mark, "a list holds plain values only");
        }
        if (!add_item(r, entry)) {
            return false;
        }
    }
}

// The current event is a mapping's start; reads up to its end.
static bool read_map(Reader *r, const char *prefix, int depth) {
    if (depth > MAX_DEPTH) {
        return fail(r, &r->event.start_mark, "nested more than 16 levels deep");
    }
    for (;;) {
        if (!next(r)) {
            return false;
        }
        if (r->event.type == YAML_MAPPING_END_EVENT) {
            return true;
        }
        const yaml_mark_t mark = r->event.start_mark;
        KeyScalar key;
        if (r->event.type != YAML_SCALAR_EVENT) {
            return fail(r, &mark, "a key must be a name");
        }
        if (!take_scalar(r, &key)) {
            return false;
        }
        char *path = xformat_new("%s%s%s", prefix, prefix[0] ? "." : "", key.text);
        free(key.text);
        KeyEntry *entry = add_entry(r, path, &mark);
        if (!entry || !next(r)) {
            return false;
        }
        bool is_good;
        if (r->event.type == YAML_SCALAR_EVENT) {
            entry->kind = KEY_SCALAR;
            is_good = add_item(r, entry);
        } else if (r->event.type == YAML_SEQUENCE_START_EVENT) {
            is_good = read_list(r, entry);
        } else {
            entry->kind = KEY_MAP;
            is_good = read_map(r, path, depth + 1);
        }
        if (!is_good) {
            return false;
        }
    }
}

static bool read_document(Reader *r) {
    if (!next(r) || !next(r)) { // the start of the stream, then of the document
        return false;
    }
    if (r->event.type == YAML_STREAM_END_EVENT) {
        return true; // nothing but comments
    }
    if (!next(r)) {
        return false;
    }
    if (r->event.type == YAML_MAPPING_START_EVENT) {
        if (!read_map(r, "", 1)) {
            return false;
        }
    } else if (r->event.type != YAML_SCALAR_EVENT || r->event.data.scalar.length > 0) {
        return fail(r, &r->event.start_mark, "the file must hold 'key: value' lines");
    }
    if (!next(r) || !next(r)) { // the end of the document, then of the stream
        return false;
    }
    return r->event.type == YAML_STREAM_END_EVENT ||
           fail(r, &r->event.start_mark, "a second document; keep one per file");
}

Error keyfile_parse_new(KeyFile *out, const void *text, size_t size) {
    *out = (KeyFile){0};
    if (size > MAX_BYTES) {
        return error_at(EXIT_CONFIG, 1, "1: %zu bytes are no configuration file (limit 1 MiB)",
                        size);
    }
    Reader r = {.out = out, .error = error_none()};
    if (!yaml_parser_initialize(&r.parser)) {
        return error_at(EXIT_RESOURCE, 1, "1: no memory for the YAML parser");
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING); // UTF-16 would be a second way
    yaml_parser_set_input_string(&r.parser, text, size);
    if (!read_document(&r)) {
        CHECK(r.error.code != EXIT_OK, "a failure without an error, in line %zu",
              r.parser.mark.line);
        keyfile_free(out);
    }
    if (r.has_event) {
        yaml_event_delete(&r.event);
    }
    yaml_parser_delete(&r.parser);
    return r.error;
}

void keyfile_free(KeyFile *file) {
    for (int i = 0; i < file->count; i++) {
        for (int k = 0; k < file->entries[i].count; k++) {
            free(file->entries[i].items[k].text);
        }
        free(file->entries[i].items);
        free(file->entries[i].path);
    }
    free(file->entries);
    *file = (KeyFile){0};
}

// ---- what a plain scalar means (YAML 1.2.2, section 10.3) ----
static bool is_one_of(const char *text, const char *words) { // words: " a b c "
    const size_t length = strlen(text);
    if (length == 0 || strchr(text, ' ')) {
        return false;
    }
    for (const char *p = words; (p = strstr(p, text)); p++) {
        if (p[-1] == ' ' && p[length] == ' ') {
            return true;
        }
    }
    return false;
}

bool keyfile_is_null(const KeyScalar *scalar) {
    return !scalar->is_quoted &&
           (!scalar->text[0] || is_one_of(scalar->text, " ~ null Null NULL "));
}

bool keyfile_is_old_bool(const KeyScalar *scalar) {
    return !scalar->is_quoted &&
           is_one_of(scalar->text, " yes Yes YES no No NO on On ON off Off OFF y Y n N ");
}

bool keyfile_get_bool(const KeyScalar *scalar, bool *out) {
    *out = is_one_of(scalar->text, " true True TRUE ");
    return !scalar->is_quoted && (*out || is_one_of(scalar->text, " false False FALSE "));
}

bool keyfile_get_int(const KeyScalar *scalar, int64_t *out) {
    const char *p = scalar->text;
    if (scalar->is_quoted) {
        return false;
    }
    int base = 10;
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'o')) {
        base = p[1] == 'x' ? 16 : 8;
        p += 2;
    }
    const char *digits = p + (base == 10 && (*p == '-' || *p == '+'));
    const char *allowed = base == 10  ? "0123456789"
                          : base == 8 ? "01234567"
                                      : "0123456789abcdefABCDEF";
    if (!*digits || digits[strspn(digits, allowed)]) {
        return false;
    }
    errno = 0;
    const long long value = strtoll(p, NULL, base);
    *out = value;
    return errno == 0;
}

bool keyfile_get_float(const KeyScalar *scalar, double *out) {
    const char *p = scalar->text;
    if (scalar->is_quoted) {
        return false;
    }
    int64_t integer;
    if (keyfile_get_int(scalar, &integer)) {
        *out = (double)integer;
        return true;
    }
    if (is_one_of(p, " .nan .NaN .NAN ")) {
        *out = strtod("nan", NULL);
        return true;
    }
    p += *p == '-' || *p == '+';
    if (is_one_of(p, " .inf .Inf .INF ")) {
        *out = strtod(scalar->text[0] == '-' ? "-inf" : "inf", NULL);
        return true;
    }
    // [0-9]* [ . [0-9]* ] with a digit somewhere, then [eE] [-+]? [0-9]+
    const size_t whole = strspn(p, "0123456789");
    p += whole;
    size_t fraction = 0;
    if (*p == '.') {
        fraction = strspn(++p, "0123456789");
        p += fraction;
    }
    if (whole + fraction == 0) {
        return false;
    }
    if (*p == 'e' || *p == 'E') {
        p += 1 + (p[1] == '-' || p[1] == '+');
        const size_t exponent = strspn(p, "0123456789");
        p += exponent;
        if (exponent == 0) {
            return false;
        }
    }
    *out = strtod(scalar->text, NULL); // we never call setlocale, so '.' is the point everywhere
    return *p == '\0';
}

bool keyfile_is_plain_safe(const char *text) {
    const KeyScalar plain = {.text = (char *)(uintptr_t)text};
    bool flag;
    double number;
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";
    return text[0] && text[0] != '-' && text[0] != '.' && text[strspn(text, letters)] == '\0' &&
           !keyfile_is_null(&plain) && !keyfile_is_old_bool(&plain) &&
           !keyfile_get_bool(&plain, &flag) && !keyfile_get_float(&plain, &number);
}
