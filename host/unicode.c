// unicode: see unicode.h.
#include "unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "json.h"
#include "kernels/base.h"

// ---- UTF-8 ----
#define HIGH_BITS 0x8080808080808080u // of eight bytes: none set, all ASCII

int utf8_write(uint8_t out[4], int32_t c) { return (int)utf8proc_encode_char(c, out); }

bool text_is_ascii(const char *text, size_t size) {
    uint64_t word = 0, high = 0;
    for (; size >= sizeof word; text += sizeof word, size -= sizeof word) {
        memcpy(&word, text, sizeof word);
        high |= word;
    }
    for (; size > 0; size--) {
        high |= (uint8_t)*text++;
    }
    return !(high & HIGH_BITS);
}

size_t utf8_valid(const char *text, size_t size) {
    const uint8_t *p = (const uint8_t *)text, *const end = p + size;
    while (p < end) {
        uint64_t word;
        for (; end - p >= (ptrdiff_t)sizeof word; p += sizeof word) { // ASCII, eight at a time
            memcpy(&word, p, sizeof word);
            if (word & HIGH_BITS) {
                break;
            }
        }
        if (p == end) {
            break;
        }
        int bad;
        const int length = *p < 0x80 ? 1 : utf8_length(p, end, &bad);
        if (length == 0) {
            break;
        }
        p += length;
    }
    return (size_t)(p - (const uint8_t *)text);
}

size_t utf8_repair(char *out, const char *text, size_t size, bool is_open) {
    size_t used = 0;
    for (size_t at = 0; at < size;) {
        const size_t valid = utf8_valid(text + at, size - at);
        memcpy(out + used, text + at, valid);
        used += valid;
        at += valid;
        if (at < size) {
            const uint8_t *p = (const uint8_t *)text + at;
            int bad;
            utf8_length(p, (const uint8_t *)text + size, &bad);
            // Cut short: the bytes so far reach the end and their first one promises more.
            const int promised = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;
            const bool is_lead = *p >= 0xc2 && *p <= 0xf4;
            if (is_open && is_lead && at + (size_t)bad == size && bad < promised) {
                break;
            }
            memcpy(out + used, "\xef\xbf\xbd", 3);
            used += 3;
            at += (size_t)bad;
        }
    }
    return used;
}

// ---- classes ----
uint8_t unicode_ascii_class[128];

static unsigned class_of(int32_t c) {
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT: return CLASS_LETTER | CLASS_UPPER | CLASS_WORD;
    case UTF8PROC_CATEGORY_LL: return CLASS_LETTER | CLASS_LOWER | CLASS_WORD;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return CLASS_LETTER | CLASS_UPPER | CLASS_LOWER | CLASS_WORD;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return CLASS_UPPER | CLASS_LOWER | CLASS_WORD;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL: return CLASS_NUMBER | CLASS_WORD;
    case UTF8PROC_CATEGORY_NO: return CLASS_NUMBER;
    case UTF8PROC_CATEGORY_PC: return CLASS_WORD;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return CLASS_SPACE;
    case UTF8PROC_CATEGORY_CC:
        return c == '\n' || c == '\r'                ? CLASS_SPACE | CLASS_NEWLINE
               : (c >= '\t' && c <= '\r') || c == 0x85 ? CLASS_SPACE
                                                       : 0;
    // Join_Control and the circled and squared letters (Other_Alphabetic) are word characters too.
    case UTF8PROC_CATEGORY_CF: return c == 0x200c || c == 0x200d ? CLASS_WORD : 0;
    case UTF8PROC_CATEGORY_SO:
        return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
                       (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189)
                   ? CLASS_WORD
                   : 0;
    default: return 0;
    }
}

unsigned unicode_class_wide(int32_t c) { return class_of(c); }

__attribute__((constructor)) static void fill_ascii_class(void) {
    for (int32_t c = 0; c < 128; c++) {
        unicode_ascii_class[c] = (uint8_t)class_of(c);
    }
}

// ---- age ----
typedef struct {
    int32_t first, last;
} CodeRange;

// Marks, punctuation and format characters assigned after Unicode 8, with whatever else lies
// between them that is none of these.
static const CodeRange after_unicode8[] = {
    {0x61d, 0x61d},     {0x7fd, 0x7fd},     {0x890, 0x8e2},     {0x9fd, 0x9fe},
    {0xa76, 0xa76},     {0xafa, 0xaff},     {0xb55, 0xb55},     {0xc04, 0xc3c},
    {0xc77, 0xc77},     {0xc84, 0xc84},     {0xd00, 0xd00},     {0xd3b, 0xd3c},
    {0xd81, 0xd81},     {0xeba, 0xeba},     {0xece, 0xece},     {0x1715, 0x1715},
    {0x180f, 0x180f},   {0x1885, 0x1886},   {0x1abf, 0x1ace},   {0x1b7d, 0x1b7e},
    {0x1df6, 0x1dfb},   {0x2e43, 0x2e5d},   {0xa82c, 0xa82c},   {0xa8c5, 0xa8c5},
    {0xa8ff, 0xa8ff},   {0xa9bd, 0xa9bd},   {0x10d24, 0x10d27}, {0x10eab, 0x10f89},
    {0x11070, 0x11074}, {0x110c2, 0x110cd}, {0x111c9, 0x111c9}, {0x111cf, 0x111cf},
    {0x1123e, 0x11241}, {0x1133b, 0x1133b}, {0x11438, 0x1145e}, {0x11660, 0x1166c},
    {0x116b9, 0x116b9}, {0x1182f, 0x1183b}, {0x11930, 0x11946}, {0x119d4, 0x11b09},
    {0x11c30, 0x11cb6}, {0x11d31, 0x11d97}, {0x11ef3, 0x11f4f}, {0x11fff, 0x11fff},
    {0x12ff1, 0x12ff2}, {0x13430, 0x13455}, {0x16e97, 0x16e9a}, {0x16f4f, 0x16f4f},
    {0x16fe2, 0x16ff1}, {0x1cf00, 0x1cf46}, {0x1e000, 0x1e02a}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1e944, 0x1e95f}};
// Those of them that Unicode 9 already had with a combining class.
static const CodeRange in_unicode9[] = {{0x8d4, 0x8e1},     {0x1dfb, 0x1dfb},
                                        {0x11442, 0x11446}, {0x11c3f, 0x11c3f},
                                        {0x1e000, 0x1e02a}, {0x1e944, 0x1e94a}};

static bool is_in(const CodeRange *ranges, size_t n, int32_t c) {
    size_t low = 0, high = n; // the first range that ends at c or later is ranges[low]
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (ranges[middle].last < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < n && ranges[low].first <= c;
}
#define IS_IN(ranges, c) is_in(ranges, sizeof(ranges) / sizeof *(ranges), c)

static bool is_after_unicode9(int32_t c) {
    return IS_IN(after_unicode8, c) && !IS_IN(in_unicode9, c);
}

// ---- BERT's view ----
bool unicode_is_control(int32_t c) {
    const int category = utf8proc_category(c);
    return (category == UTF8PROC_CATEGORY_CC && c != '\t' && c != '\n' && c != '\r') ||
           category == UTF8PROC_CATEGORY_CO ||
           (category == UTF8PROC_CATEGORY_CF && !IS_IN(after_unicode8, c));
}

bool unicode_is_accent(int32_t c) {
    return (utf8proc_category(c) == UTF8PROC_CATEGORY_MN && !IS_IN(after_unicode8, c)) ||
           c == 0x1734; // Mn until Unicode 14
}

bool unicode_is_punctuation(int32_t c) {
    if (c < 128) {
        return c > ' ' && c != 0x7f && !(unicode_class(c) & (CLASS_LETTER | CLASS_NUMBER));
    }
    const int category = utf8proc_category(c);
    return (category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO &&
            !IS_IN(after_unicode8, c)) ||
           c == 0x166d || c == 0x111c9; // Po until Unicode 12 and 11
}

bool unicode_is_chinese(int32_t c) {
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0x2f800 && c <= 0x2fa1f);
}

// ---- change ----
int unicode_lower(int32_t out[2], int32_t c) {
    if (c == 0x130) { // the one character whose lower case is two
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = utf8proc_tolower(c);
    return 1;
}

static int combining_class(int32_t c) {
    return c < 0x300 || is_after_unicode9(c) ? 0 : utf8proc_get_property(c)->combining_class;
}

size_t unicode_decompose(int32_t *out, const int32_t *c, size_t n) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        int boundary = 0, count = 1;
        if (c[i] < 0xc0 || is_after_unicode9(c[i])) {
            out[used] = c[i];
        } else {
            count = (int)utf8proc_decompose_char(c[i], out + used, 4, UTF8PROC_DECOMPOSE,
                                                 &boundary);
            CHECK(count >= 1 && count <= 4, "U+%04X gives %d", (unsigned)c[i], count);
        }
        used += (size_t)count;
    }
    // Canonical order: marks between two starters by class, equal classes as they came.
    for (size_t i = 1; i < used; i++) {
        const int32_t moved = out[i];
        const int own = combining_class(moved);
        size_t at = i;
        for (; own > 0 && at > 0 && combining_class(out[at - 1]) > own; at--) {
            out[at] = out[at - 1];
        }
        out[at] = moved;
    }
    return used;
}

size_t unicode_compose(int32_t *c, size_t n) {
    size_t used = 0;
    for (size_t at = 0; at < n;) { // a young mark is a stop, at which nothing composes
        size_t end = at;
        while (end < n && !is_after_unicode9(c[end])) {
            end++;
        }
        if (end > at) {
            const utf8proc_ssize_t count = utf8proc_normalize_utf32(
                c + at, (utf8proc_ssize_t)(end - at), UTF8PROC_STABLE | UTF8PROC_COMPOSE);
            memmove(c + used, c + at, (size_t)count * sizeof *c);
            used += (size_t)count;
        }
        if (end < n) {
            c[used++] = c[end++];
        }
        at = end;
    }
    return used;
}
