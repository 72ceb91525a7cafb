// unicode: what the tokenizers want to know of a code point, and how they change text.
//
// Categories, decompositions and case come from utf8proc (Unicode 15 in 2.8). The tokenizers that
// trained the models have older data in places: Hugging Face's normalizers know Unicode 8's
// categories and Unicode 9's combining classes. A mark that they do not know stays where it is, so
// we forget it too. Code points newer than utf8proc are unassigned.
// Source: Unicode 15, UAX #15 and #44; the ages were found out by running every code point through
// the Python package tokenizers 0.23.3.
#ifndef JOMED_HOST_UNICODE_H
#define JOMED_HOST_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- UTF-8 ----
// The code point at p, whose length goes to *length. The text must be valid UTF-8.
static inline int32_t utf8_read(const uint8_t *p, int *length) {
    if (p[0] < 0x80) {
        *length = 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *length = 2;
        return (p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    }
    if (p[0] < 0xf0) {
        *length = 3;
        return (p[0] & 0x0f) << 12 | (p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    }
    *length = 4;
    return (p[0] & 0x07) << 18 | (p[1] & 0x3f) << 12 | (p[2] & 0x3f) << 6 | (p[3] & 0x3f);
}
int utf8_write(uint8_t out[4], int32_t c); // number of bytes
bool text_is_ascii(const char *text, size_t size);
// Bytes of the valid UTF-8 at the start of text.
size_t utf8_valid(const char *text, size_t size);
// Text with U+FFFD for every maximal part that is not UTF-8, as Python's errors="replace" does.
// out has room for 3 * size bytes. Returns the bytes written. With is_open, a character that the
// end of the text cuts is not written: what follows may complete it.
size_t utf8_repair(char *out, const char *text, size_t size, bool is_open);

// ---- classes ----
// Bits, so that a set of classes is one test. Marks are both upper and lower, as in Tekken's rule.
enum {
    CLASS_SPACE = 1,    // White_Space
    CLASS_NEWLINE = 2,  // \r and \n
    CLASS_LETTER = 4,   // L*
    CLASS_NUMBER = 8,   // N*
    CLASS_UPPER = 16,   // Lu, Lt, Lm, Lo, M*
    CLASS_LOWER = 32,   // Ll, Lm, Lo, M*
    CLASS_WORD = 64,    // \w of regular expressions: letters, marks, decimal digits, connectors
};
extern uint8_t unicode_ascii_class[128];
unsigned unicode_class_wide(int32_t c);
static inline unsigned unicode_class(int32_t c) {
    return c < 128 ? unicode_ascii_class[c] : unicode_class_wide(c);
}

// What Python's str.isspace says: White_Space and the four separators U+001C to U+001F.
static inline bool unicode_is_python_space(int32_t c) {
    return (unicode_class(c) & CLASS_SPACE) || (c >= 0x1c && c <= 0x1f);
}

// ---- BERT's view of a character, by the categories of Unicode 8 ----
bool unicode_is_control(int32_t c);     // Cc, Cf, Co, other than \t \n \r; not Cn
bool unicode_is_accent(int32_t c);      // Mn
bool unicode_is_punctuation(int32_t c); // P*, and all ASCII that is neither letter, digit nor blank
bool unicode_is_chinese(int32_t c);     // the blocks that BERT surrounds by blanks

// ---- change ----
int unicode_lower(int32_t out[2], int32_t c); // 1, or 2 for U+0130
// Canonical decomposition (NFD) of c[0..n-1] into out, which has room for 4 * n; returns the count.
size_t unicode_decompose(int32_t *out, const int32_t *c, size_t n);
// Composes in place what unicode_decompose left: together NFC. Returns the count.
size_t unicode_compose(int32_t *c, size_t n);

#endif
