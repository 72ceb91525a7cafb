// keyfile: the part of YAML that configuration files use, flattened to "a.b.c" paths.
//
// One document, a mapping at the top; values are scalars, lists of scalars, or mappings. libyaml
// checks the syntax and gives events; scalars stay text here, what a text means is the reader's
// business. Refused: anchors, aliases (no bombs), tags, a second document, lists in lists, mappings
// in lists, more than 16 levels, 4096 keys, 1 MiB. A key that is there twice is marked, so that its
// reader can refuse it together with all else that is wrong.
// Source: YAML 1.2.2, chapters 3 and 7; libyaml 0.2.5 (which reads YAML 1.1 syntax).
#ifndef JOMED_HOST_KEYFILE_H
#define JOMED_HOST_KEYFILE_H

#include "kernels/base.h"

typedef struct {
    char *text;       // UTF-8, zero-terminated, no zero byte inside
    bool is_quoted;   // or a block scalar: a text whatever it looks like
    int line, column; // from 1
} KeyScalar;

typedef enum { KEY_SCALAR, KEY_LIST, KEY_MAP } KeyKind;

// One key. `a: {b: 1}` gives two: "a" of kind KEY_MAP and "a.b"; `a.b: 1` gives only the second.
typedef struct {
    char *path;
    KeyKind kind;
    KeyScalar *items; // 1 for a scalar, any number for a list, 0 for a map
    int count;
    int line, column; // of the key
    int first_line;   // of the same key before this one: a duplicate, to be refused; 0: none
} KeyEntry;

typedef struct {
    KeyEntry *entries; // in the order of the file
    int count;
} KeyFile;

// Error: code EXIT_CONFIG, offset = line, and the text begins with "column: ".
Error keyfile_parse_new(KeyFile *out, const void *text, size_t size);
void keyfile_free(KeyFile *file); // also fine on a zeroed struct

// YAML 1.2 core schema, for plain (unquoted) scalars.
bool keyfile_is_null(const KeyScalar *scalar);
bool keyfile_get_bool(const KeyScalar *scalar, bool *out);
// Decimal, 0x, 0o; false when too large for the type.
bool keyfile_get_int(const KeyScalar *scalar, int64_t *out);
bool keyfile_get_float(const KeyScalar *scalar, double *out); // ints too; .inf and .nan too
bool keyfile_is_old_bool(const KeyScalar *scalar); // yes no on off y n: booleans before YAML 1.2
// True when text written plain would be read back as this very text.
bool keyfile_is_plain_safe(const char *text);

#endif
