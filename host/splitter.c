// splitter: see splitter.h. Each rule is its alternatives in order, as functions from a place to
// the end of the match there, or to the same place when there is none.
#include "splitter.h"

#include <string.h>

#include "kernels/base.h"
#include "unicode.h"

#define ENDS "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define SIGNS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define CLIP_RULE "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define LEAD "[^\\r\\n\\p{L}\\p{N}]?"

Splitter splitter_from_regex(const char *regex) {
    static const struct {
        const char *regex;
        Splitter splitter;
    } known[] = {
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
         CUT_GPT2},
        {CLIP_RULE, CUT_CLIP},
        {"<\\|startoftext\\|>|<\\|endoftext\\|>|" CLIP_RULE, CUT_CLIP},
        {WORDS "\\p{N}" SIGNS ENDS, CUT_QWEN2},
        {WORDS "\\p{N}{1,3}" SIGNS ENDS, CUT_LLAMA3},
        {LEAD UPPER "*" LOWER "+|" LEAD UPPER "+" LOWER "*|\\p{N}"
         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" ENDS,
         CUT_TEKKEN},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].regex, regex) == 0) {
            return known[i].splitter;
        }
    }
    return CUT_COUNT;
}

// ---- reading ----
typedef struct {
    const uint8_t *text;
    size_t size;
} Text;

enum { CLASS_END = 128 }; // behind the last character: in no other class

// Class of the character at `at`, and the place behind it.
static inline unsigned class_at(Text t, size_t at, size_t *next) {
    if (at >= t.size) {
        *next = at;
        return CLASS_END;
    }
    if (t.text[at] < 0x80) {
        *next = at + 1;
        return unicode_ascii_class[t.text[at]];
    }
    int length;
    const int32_t c = utf8_read(t.text + at, &length);
    *next = at + (size_t)length;
    return unicode_class_wide(c);
}

// End of the run of characters that have one of these classes.
static inline size_t skip(Text t, size_t at, unsigned classes) {
    size_t next;
    while (class_at(t, at, &next) & classes) {
        at = next;
    }
    return at;
}

// End of the run of characters that have none of them.
static inline size_t skip_others(Text t, size_t at, unsigned classes) {
    size_t next;
    while (!(class_at(t, at, &next) & (classes | CLASS_END))) {
        at = next;
    }
    return at;
}

// [^\s\p{L}\p{N}] has none of these.
enum { CLASS_PLAIN = CLASS_SPACE | CLASS_LETTER | CLASS_NUMBER };

// ---- alternatives ----
// 's|'t|'re|'ve|'m|'ll|'d. Without regard to case also the long s, which folds to s.
static size_t contraction(Text t, size_t at, bool any_case) {
    if (t.text[at] != '\'' || at + 1 >= t.size) {
        return at;
    }
    const uint8_t fold = any_case ? 0x20 : 0;
    const uint8_t a = t.text[at + 1] | (t.text[at + 1] < 0x80 ? fold : 0);
    const uint8_t b = at + 2 < t.size ? t.text[at + 2] | (t.text[at + 2] < 0x80 ? fold : 0) : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        return at + 2;
    }
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) {
        return at + 3;
    }
    return any_case && a == 0xc5 && b == 0xbf ? at + 3 : at;
}

// \s*[\r\n]+|\s+(?!\S)|\s+: up to the last newline of the blanks; else all blanks but the last one,
// which belongs to what follows; else, at the end of the text or alone, all.
static size_t blanks(Text t, size_t at, bool newlines_first) {
    size_t end = at, last = at, after_newline = at, next;
    for (unsigned class; (class = class_at(t, end, &next)) & CLASS_SPACE; end = next) {
        last = end;
        after_newline = class & CLASS_NEWLINE ? next : after_newline;
    }
    if (newlines_first && after_newline > at) {
        return after_newline;
    }
    return end < t.size && last > at ? last : end;
}

//  ?[^\s\p{L}\p{N}]+, and then any of the bytes in `tail`.
static size_t signs(Text t, size_t at, const char *tail) {
    const size_t from = at + (t.text[at] == ' ');
    size_t end = skip_others(t, from, CLASS_PLAIN);
    if (end == from) {
        return at;
    }
    while (end < t.size && t.text[end] && strchr(tail, t.text[end])) {
        end++;
    }
    return end;
}

// [^\r\n\p{L}\p{N}]?\p{L}+
static size_t word(Text t, size_t at) {
    size_t next;
    const unsigned class = class_at(t, at, &next);
    if (class & CLASS_LETTER) {
        return skip(t, next, CLASS_LETTER);
    }
    if (class & (CLASS_NEWLINE | CLASS_NUMBER)) {
        return at;
    }
    const size_t end = skip(t, next, CLASS_LETTER);
    return end > next ? end : at;
}

static size_t numbers(Text t, size_t at, int most) {
    size_t next;
    for (int i = 0; i < most && class_at(t, at, &next) & CLASS_NUMBER; i++) {
        at = next;
    }
    return at;
}

// ---- Tekken ----
// U*W+ from `from`: the run of U, then as many W as follow. Where none follows, the run gives back
// characters until one of them is a W. `from` when nothing matches.
static size_t upper_lower(Text t, size_t from) {
    const size_t run = skip(t, from, CLASS_UPPER);
    size_t end = skip(t, run, CLASS_LOWER);
    for (size_t at = run; end == run && at > from;) {
        do {
            at--;
        } while ((t.text[at] & 0xc0) == 0x80);
        const size_t lower = skip(t, at, CLASS_LOWER);
        if (lower > at) {
            return lower;
        }
    }
    return end > run ? end : from;
}

// U+W*
static size_t uppers(Text t, size_t from) {
    const size_t run = skip(t, from, CLASS_UPPER);
    return run > from ? skip(t, run, CLASS_LOWER) : from;
}

// The first two alternatives, each tried with the leading character and then without.
static size_t cased_word(Text t, size_t at) {
    size_t next;
    const unsigned class = class_at(t, at, &next);
    const bool may_lead = !(class & (CLASS_NEWLINE | CLASS_LETTER | CLASS_NUMBER));
    size_t end;
    if (may_lead && (end = upper_lower(t, next)) > next) {
        return end;
    }
    if ((end = upper_lower(t, at)) > at) {
        return end;
    }
    if (may_lead && (end = uppers(t, next)) > next) {
        return end;
    }
    return uppers(t, at);
}

// ---- rules ----
static size_t gpt2_end(Text t, size_t at) {
    size_t end = contraction(t, at, false);
    if (end > at) {
        return end;
    }
    const size_t from = at + (t.text[at] == ' ');
    if ((end = skip(t, from, CLASS_LETTER)) > from || (end = skip(t, from, CLASS_NUMBER)) > from ||
        (end = signs(t, at, "")) > at) {
        return end;
    }
    return blanks(t, at, false);
}

static size_t qwen2_end(Text t, size_t at, int digits) {
    size_t end;
    if ((end = contraction(t, at, true)) > at || (end = word(t, at)) > at ||
        (end = numbers(t, at, digits)) > at || (end = signs(t, at, "\r\n")) > at) {
        return end;
    }
    return blanks(t, at, true);
}

static size_t tekken_end(Text t, size_t at) {
    size_t end;
    if ((end = cased_word(t, at)) > at || (end = numbers(t, at, 1)) > at ||
        (end = signs(t, at, "\r\n/")) > at) {
        return end;
    }
    return blanks(t, at, true);
}

static size_t clip_end(Text t, size_t at) {
    size_t end;
    if ((end = contraction(t, at, false)) > at || (end = skip(t, at, CLASS_LETTER)) > at ||
        (end = numbers(t, at, 1)) > at) {
        return end;
    }
    return skip_others(t, at, CLASS_PLAIN);
}

static size_t bert_end(Text t, size_t at) {
    for (size_t end = at; end < t.size;) {
        int length = 1;
        const int32_t c = t.text[end] < 0x80 ? t.text[end] : utf8_read(t.text + end, &length);
        if (unicode_class(c) & CLASS_SPACE) {
            return end;
        }
        if (unicode_is_punctuation(c)) {
            return end > at ? end : end + (size_t)length;
        }
        end += (size_t)length;
    }
    return t.size;
}

bool splitter_next(Splitter splitter, const char *text, size_t size, size_t *begin, size_t *end) {
    const Text t = {(const uint8_t *)text, size};
    if (splitter == CUT_BERT || splitter == CUT_CLIP) {
        *begin = skip(t, *begin, CLASS_SPACE);
    }
    if (*begin >= size) {
        return false;
    }
    switch (splitter) {
    case CUT_BERT: *end = bert_end(t, *begin); break;
    case CUT_GPT2: *end = gpt2_end(t, *begin); break;
    case CUT_CLIP: *end = clip_end(t, *begin); break;
    case CUT_QWEN2: *end = qwen2_end(t, *begin, 1); break;
    case CUT_LLAMA3: *end = qwen2_end(t, *begin, 3); break;
    case CUT_TEKKEN: *end = tekken_end(t, *begin); break;
    case CUT_COUNT: *end = *begin; break;
    }
    CHECK(*end > *begin, "splitter %d stands still at byte %zu", (int)splitter, *begin);
    return true;
}
