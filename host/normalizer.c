// normalizer: see normalizer.h. The general way goes through arrays of code points, one step at a
// time from one array to the other.
#include "normalizer.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base.h"
#include "unicode.h"

// Code points one step may make of one: a decomposition gives up to four.
enum { GROWTH = 4 };

// ---- steps ----
// Each writes to out, which has room for GROWTH * n, and returns the count.
static size_t step_blanks(int32_t *out, const int32_t *c, size_t n) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const bool is_blank = unicode_class(c[i]) & CLASS_SPACE;
        if (!is_blank || i == 0 || !(unicode_class(c[i - 1]) & CLASS_SPACE)) {
            out[used++] = is_blank ? ' ' : c[i];
        }
    }
    return used;
}

static size_t step_lower(int32_t *out, const int32_t *c, size_t n) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        used += (size_t)unicode_lower(out + used, c[i]);
    }
    return used;
}

static size_t step_clean(int32_t *out, const int32_t *c, size_t n) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (c[i] != 0 && c[i] != 0xfffd && !unicode_is_control(c[i])) {
            out[used++] = unicode_class(c[i]) & CLASS_SPACE ? ' ' : c[i];
        }
    }
    return used;
}

static size_t step_chinese(int32_t *out, const int32_t *c, size_t n) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (unicode_is_chinese(c[i])) {
            out[used++] = ' ';
            out[used++] = c[i];
            out[used++] = ' ';
        } else {
            out[used++] = c[i];
        }
    }
    return used;
}

static size_t step_accents(int32_t *out, const int32_t *c, size_t n) {
    const size_t whole = unicode_decompose(out, c, n);
    size_t used = 0;
    for (size_t i = 0; i < whole; i++) {
        if (!unicode_is_accent(out[i])) {
            out[used++] = out[i];
        }
    }
    return used;
}

static size_t step_nfc(int32_t *out, const int32_t *c, size_t n) {
    return unicode_compose(out, unicode_decompose(out, c, n));
}

// ---- all steps ----
typedef size_t step_fn(int32_t *out, const int32_t *c, size_t n);

static void reserve_codes(Normalizer *norm, size_t n) {
    if (norm->code_room < n) {
        norm->code_room = 2 * n;
        for (int i = 0; i < 2; i++) {
            norm->code[i] = xrealloc(norm->code[i], norm->code_room, sizeof(int32_t));
        }
    }
}

static size_t apply(Normalizer *norm, step_fn *step, size_t n) {
    reserve_codes(norm, GROWTH * n);
    const size_t count = step(norm->code[1], norm->code[0], n);
    int32_t *const from = norm->code[0];
    norm->code[0] = norm->code[1];
    norm->code[1] = from;
    return count;
}

// norm->code[0] (n) through every step.
static size_t run_steps(Normalizer *norm, size_t n) {
    for (int i = 0; i < norm->count; i++) {
        switch (norm->steps[i]) {
        case NORMALIZE_NFC: n = apply(norm, step_nfc, n); break;
        case NORMALIZE_BLANKS: n = apply(norm, step_blanks, n); break;
        case NORMALIZE_LOWER: n = apply(norm, step_lower, n); break;
        case NORMALIZE_BERT:
            n = norm->clean_text ? apply(norm, step_clean, n) : n;
            n = norm->chinese ? apply(norm, step_chinese, n) : n;
            n = norm->strip_accents ? apply(norm, step_accents, n) : n;
            n = norm->lowercase ? apply(norm, step_lower, n) : n;
            break;
        }
    }
    return n;
}

static bool has_step(const Normalizer *norm, NormalizeStep step) {
    for (int i = 0; i < norm->count; i++) {
        if (norm->steps[i] == step) {
            return true;
        }
    }
    return false;
}

void normalizer_begin(Normalizer *norm) {
    CHECK(norm->count == 1 || !has_step(norm, NORMALIZE_BERT), "BERT beside other steps");
    for (int c = 0; c < 128; c++) {
        reserve_codes(norm, 1);
        norm->code[0][0] = c;
        norm->ascii[c] = run_steps(norm, 1) ? (int16_t)norm->code[0][0] : -1;
    }
}

void normalizer_free(Normalizer *norm) {
    free(norm->code[0]);
    free(norm->code[1]);
    free(norm->text);
    norm->code[0] = norm->code[1] = NULL;
    norm->text = NULL;
}

// ---- text ----
static void reserve_text(Normalizer *norm, size_t size) {
    if (norm->text_room < size + 1) {
        norm->text_room = 2 * size + 64;
        norm->text = xrealloc(norm->text, norm->text_room, 1);
    }
}

static size_t run_ascii(Normalizer *norm, const char *text, size_t size) {
    reserve_text(norm, size);
    char *out = norm->text;
    if (!has_step(norm, NORMALIZE_BLANKS)) {
        for (size_t i = 0; i < size; i++) { // without a branch: a dropped character is overwritten
            const int16_t c = norm->ascii[(uint8_t)text[i]];
            *out = (char)c;
            out += c >= 0;
        }
        return (size_t)(out - norm->text);
    }
    bool is_after_blank = false;
    for (size_t i = 0; i < size; i++) {
        const bool is_blank = unicode_ascii_class[(uint8_t)text[i]] & CLASS_SPACE;
        if (!is_blank || !is_after_blank) {
            *out++ = (char)norm->ascii[(uint8_t)text[i]];
        }
        is_after_blank = is_blank;
    }
    return (size_t)(out - norm->text);
}

// No lead byte of U+0300 or beyond: all of these are composed already, and stay so together.
static bool is_below_u0300(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if ((uint8_t)text[i] >= 0xcc) {
            return false;
        }
    }
    return true;
}

const char *normalizer_run(Normalizer *norm, const char *text, size_t size, size_t *out_size) {
    *out_size = size;
    if (norm->count == 0 ||
        (norm->count == 1 && norm->steps[0] == NORMALIZE_NFC && is_below_u0300(text, size))) {
        return text;
    }
    if (text_is_ascii(text, size)) {
        *out_size = run_ascii(norm, text, size);
        return norm->text;
    }
    reserve_codes(norm, size);
    size_t n = 0;
    for (size_t at = 0; at < size;) {
        int length;
        norm->code[0][n++] = utf8_read((const uint8_t *)text + at, &length);
        at += (size_t)length;
    }
    n = run_steps(norm, n);
    reserve_text(norm, 4 * n);
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        used += (size_t)utf8_write((uint8_t *)norm->text + used, norm->code[0][i]);
    }
    *out_size = used;
    return norm->text;
}
