// text_clean: see text_clean.h.
#include "text_clean.h"

#include <string.h>

#include "kernels/base.h"
#include "unicode.h"

// ---- names of characters ----
typedef struct {
    int32_t first;     // code point of the first name; the others follow it
    const char *names; // parted by blanks
} NameRun;

// The runs that older pages also wrote without a semicolon.
static const NameRun short_names[] = {
    {0x22, "quot"}, {0x26, "amp"}, {0x3c, "lt"}, {0x3e, "gt"}, {0x22, "QUOT"}, {0x26, "AMP"},
    {0x3c, "LT"}, {0x3e, "GT"}, {0xa9, "COPY"}, {0xae, "REG"},
    {0xa0, "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg "
           "plusmn sup2 sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 "
           "iquest Agrave Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave Eacute Ecirc Euml "
           "Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash "
           "Ugrave Uacute Ucirc Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring "
           "aelig ccedil egrave eacute ecirc euml igrave iacute icirc iuml eth ntilde ograve "
           "oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute thorn yuml"}};
static const NameRun names[] = {
    {0x27, "apos"}, {0x152, "OElig oelig"}, {0x160, "Scaron scaron"}, {0x178, "Yuml"},
    {0x192, "fnof"}, {0x2c6, "circ"}, {0x2dc, "tilde"},
    {0x391, "Alpha Beta Gamma Delta Epsilon Zeta Eta Theta Iota Kappa Lambda Mu Nu Xi Omicron Pi "
            "Rho"},
    {0x3a3, "Sigma Tau Upsilon Phi Chi Psi Omega"},
    {0x3b1, "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi "
            "rho sigmaf sigma tau upsilon phi chi psi omega"},
    {0x3d1, "thetasym upsih"}, {0x3d6, "piv"}, {0x2002, "ensp emsp"}, {0x2009, "thinsp"},
    {0x200c, "zwnj zwj lrm rlm"}, {0x2013, "ndash mdash"}, {0x2018, "lsquo rsquo sbquo"},
    {0x201c, "ldquo rdquo bdquo"}, {0x2020, "dagger Dagger bull"}, {0x2026, "hellip"},
    {0x2030, "permil"}, {0x2032, "prime Prime"}, {0x2039, "lsaquo rsaquo"}, {0x203e, "oline"},
    {0x2044, "frasl"}, {0x20ac, "euro"}, {0x2111, "image"}, {0x2118, "weierp"},
    {0x211c, "real"}, {0x2122, "trade"}, {0x2135, "alefsym"}, {0x2190, "larr uarr rarr darr harr"},
    {0x21b5, "crarr"}, {0x21d0, "lArr uArr rArr dArr hArr"}, {0x2200, "forall"},
    {0x2202, "part exist"}, {0x2205, "empty"}, {0x2207, "nabla isin notin"}, {0x220b, "ni"},
    {0x220f, "prod"}, {0x2211, "sum minus"}, {0x2217, "lowast"}, {0x221a, "radic"},
    {0x221d, "prop infin"}, {0x2220, "ang"}, {0x2227, "and or cap cup int"}, {0x2234, "there4"},
    {0x223c, "sim"}, {0x2245, "cong"}, {0x2248, "asymp"}, {0x2260, "ne equiv"}, {0x2264, "le ge"},
    {0x2282, "sub sup nsub"}, {0x2286, "sube supe"}, {0x2295, "oplus"}, {0x2297, "otimes"},
    {0x22a5, "perp"}, {0x22c5, "sdot"}, {0x2308, "lceil rceil lfloor rfloor"},
    {0x25ca, "loz"}, {0x2660, "spades"}, {0x2663, "clubs"}, {0x2665, "hearts diams"},
    {0x27e8, "lang rang"}};

// Code point of a name, or -1.
static int32_t find_in(const NameRun *runs, size_t count, const char *name, size_t size) {
    for (size_t r = 0; r < count; r++) {
        int32_t c = runs[r].first;
        for (const char *at = runs[r].names; *at; c++) {
            const size_t word = strcspn(at, " ");
            if (word == size && memcmp(at, name, size) == 0) {
                return c;
            }
            at += word + (at[word] == ' ');
        }
    }
    return -1;
}
#define FIND_IN(runs, name, size) find_in(runs, sizeof(runs) / sizeof *(runs), name, size)

// ---- references ----
// What a number stands for: -1 for nothing at all. The bytes 0x80 to 0x9f mean Windows-1252.
static int32_t number_meaning(int32_t c) {
    static const uint16_t windows[32] = {
        0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
        0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
        0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};
    if (c >= 0x80 && c <= 0x9f) {
        return windows[c - 0x80];
    }
    if (c == 0 || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff) {
        return 0xfffd;
    }
    const bool is_control = (c < 0x20 && c != '\t' && c != '\n' && c != '\f' && c != '\r') ||
                            c == 0x7f;
    return is_control || (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe ? -1 : c;
}

static int digit_of(char c, int base) {
    const char low = (char)(c | 0x20);
    const int digit = c >= '0' && c <= '9'       ? c - '0'
                      : low >= 'a' && low <= 'f' ? low - 'a' + 10
                                                 : base;
    return digit < base ? digit : -1;
}

// A reference at text[0] == '&': its bytes, or 0 for none; *c: the character, -1 for nothing.
static size_t number_reference(const char *text, size_t size, int32_t *c) {
    const bool is_hex = size > 2 && (text[2] | 0x20) == 'x';
    const int base = is_hex ? 16 : 10;
    const size_t first = is_hex ? 3 : 2;
    int32_t value = 0;
    size_t at = first;
    for (; at < size && digit_of(text[at], base) >= 0; at++) {
        value = value > 0x10ffff ? value : value * base + digit_of(text[at], base);
    }
    *c = number_meaning(value);
    return at == first ? 0 : at + (at < size && text[at] == ';');
}

static size_t name_reference(const char *text, size_t size, int32_t *c) {
    enum { LONGEST = 32 }; // characters, in Python's expression; our names are shorter
    size_t end = 1;
    while (end < size && end <= LONGEST && !strchr("\t\n\f <&#;", text[end])) {
        end++;
    }
    if (end < size && text[end] == ';') {
        *c = FIND_IN(short_names, text + 1, end - 1);
        *c = *c < 0 ? FIND_IN(names, text + 1, end - 1) : *c;
        if (*c >= 0) {
            return end + 1;
        }
    }
    for (; end > 2; end--) { // the longest beginning that needs no semicolon
        *c = FIND_IN(short_names, text + 1, end - 1);
        if (*c >= 0) {
            return end;
        }
    }
    return 0;
}

// ---- steps ----
// In place: a character is never longer than its reference. Returns the bytes left.
static size_t unescape(char *text, size_t size) {
    size_t used = 0;
    for (size_t at = 0; at < size;) {
        int32_t c = -1;
        size_t length = 0;
        if (text[at] == '&' && at + 1 < size) {
            length = text[at + 1] == '#' ? number_reference(text + at, size - at, &c)
                                         : name_reference(text + at, size - at, &c);
        }
        if (length == 0) {
            text[used++] = text[at++];
            continue;
        }
        at += length;
        uint8_t bytes[4];
        const int count = c < 0 ? 0 : utf8_write(bytes, c);
        memcpy(text + used, bytes, (size_t)count);
        used += (size_t)count;
    }
    return used;
}

static size_t collapse(char *text, size_t size) {
    size_t used = 0;
    bool is_after_blank = true; // so none comes first
    for (size_t at = 0; at < size;) {
        int length;
        const int32_t c = utf8_read((const uint8_t *)text + at, &length);
        const bool is_blank = unicode_is_python_space(c);
        if (is_blank && !is_after_blank) {
            text[used++] = ' ';
        } else if (!is_blank) {
            memmove(text + used, text + at, (size_t)length);
            used += (size_t)length;
        }
        is_after_blank = is_blank;
        at += (size_t)length;
    }
    return used - (used > 0 && text[used - 1] == ' ');
}

char *text_clean_new(const char *text, size_t size, size_t *out_size) {
    char *out = xmalloc(size + 1, 1);
    memcpy(out, text, size);
    size = unescape(out, size);
    size = unescape(out, size);
    size = collapse(out, size);
    out[size] = '\0';
    *out_size = size;
    return out;
}
