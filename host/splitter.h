// splitter: cuts text into the pieces that a tokenizer's model sees one by one (a "pre-tokenizer").
//
// The files state these rules as regular expressions. There is no engine for them here: each rule
// that a known model uses is written out by hand and recognised by its text, any other is refused.
// Alternatives are tried left to right as a backtracking engine does; \p classes and \s are
// Unicode's.
//   BERT      runs between white space, which is dropped; punctuation stands alone
//   GPT2      's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   CLIP      's|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+; white space is dropped
//   QWEN2     (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*
//             |\s*[\r\n]+|\s+(?!\S)|\s+
//   LLAMA3    QWEN2 with \p{N}{1,3}
//   TEKKEN    [^\r\n\p{L}\p{N}]?U*W+|[^\r\n\p{L}\p{N}]?U+W*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*
//             |\s*[\r\n]+|\s+(?!\S)|\s+
//             with U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and W = [\p{Ll}\p{Lm}\p{Lo}\p{M}]
// Source: the tokenizer.json of these models; tiktoken; each rule as quoted above.
#ifndef JOMED_HOST_SPLITTER_H
#define JOMED_HOST_SPLITTER_H

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    CUT_BERT,
    CUT_GPT2,
    CUT_CLIP,
    CUT_QWEN2,
    CUT_LLAMA3,
    CUT_TEKKEN,
    CUT_COUNT
} Splitter;

// The rule that a file's regular expression states; CUT_COUNT: none of ours. Transformers 5 writes
// CLIP's with the two special strings in front; they would matter only to text that spells one and
// is meant as plain text, which we cut as any other text.
Splitter splitter_from_regex(const char *regex);

// The next piece at or after *begin goes to text[*begin .. *end-1]; false when there is none.
// text: valid UTF-8. Start with *begin = 0, go on with *begin = *end.
bool splitter_next(Splitter splitter, const char *text, size_t size, size_t *begin, size_t *end);

#endif
