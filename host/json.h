// json: strict JSON in (jansson with duplicates refused), members with clear errors, JSON text out.
//
// Numbers: integers are 64 bits, others doubles. Refused beyond the standard: duplicate keys,
// "\u0000", a zero byte anywhere, more than 2048 levels. Files are UTF-8 without a byte order mark.
// Source: RFC 8259; jansson 2.14.
#ifndef JOMED_HOST_JSON_H
#define JOMED_HOST_JSON_H

#include <jansson.h>

#include "kernels/base.h"

// ---- reading ----
// Error: EXIT_BAD_DATA, offset = byte, the text begins "line L column C: ". *out is a new
// reference.
Error json_parse_new(json_t **out, const void *text, size_t size);
// The same where a text may hold "\u0000", which json_member_text refuses: for files that have it
// in members we do not want.
Error json_parse_nul_new(json_t **out, const void *text, size_t size);
// json_parse_new for a whole file of at most limit bytes; the offset is ERROR_NOWHERE.
Error json_read_new(json_t **out, const char *path, size_t limit);

// ---- members ----
// Member `name` of an object; the text and objects handed out are borrowed. A member that is absent
// or null leaves *out as it was (so set the default before) unless is_required. Another type, a
// number out of range: EXIT_BAD_DATA, offset ERROR_NOWHERE, text "member 'name' wants an integer,
// got a text".
Error json_member_text(const json_t *object, const char *name, bool is_required, const char **out);
Error json_member_int(const json_t *object, const char *name, bool is_required, int64_t low,
                      int64_t high, int64_t *out);
Error json_member_number(const json_t *object, const char *name, bool is_required, double *out);
Error json_member_bool(const json_t *object, const char *name, bool is_required, bool *out);
Error json_member_object(const json_t *object, const char *name, bool is_required,
                         const json_t **out);
Error json_member_array(const json_t *object, const char *name, bool is_required,
                        const json_t **out);
const char *json_type_name(const json_t *value); // "an integer", "a text", "nothing" for NULL

// ---- writing ----
// Text as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD, so that it is
// always valid. Caller frees.
char *json_quote_new(const char *text);
// A number as JSON: shortest text that reads back equal; "null" when it is not finite. Returns out.
enum { JSON_NUMBER_ROOM = 40 };
char *json_number(char out[JSON_NUMBER_ROOM], double value);

// ---- UTF-8 ----
// Length of the valid character at p (1..4), or 0 with *bad the bytes that one U+FFFD replaces (the
// maximal subpart, Unicode 15 section 3.9). p < end.
int utf8_length(const uint8_t *p, const uint8_t *end, int *bad);

#endif
