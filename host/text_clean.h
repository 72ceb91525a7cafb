// text_clean: what open_clip does to a caption before its tokenizers see it.
//
// HTML character references are resolved, twice over, as Python's html.unescape does; blanks at
// both ends go, and every run of blanks becomes one space.
// Left out: ftfy.fix_text, the first step there, which mends text that was decoded wrongly; on
// plain ASCII it changes nothing. Names of characters beyond HTML 4 (some 1,900 of HTML 5) stay as
// they are.
// Source: open_clip 3, tokenizer.py; Python's html package; HTML 4.01, section 24.
#ifndef JOMED_HOST_TEXT_CLEAN_H
#define JOMED_HOST_TEXT_CLEAN_H

#include <stddef.h>

// text: valid UTF-8. The cleaned text, NUL-terminated, *out_size without that NUL; caller frees.
char *text_clean_new(const char *text, size_t size, size_t *out_size);

#endif
