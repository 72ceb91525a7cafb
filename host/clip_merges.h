// clip_merges: CLIP's tokenizer from the list of merges that OpenAI published, which implies all
// else.
//
// Ids: the 256 symbols of bytes, the same at the end of a word, the results of the first 48,894
// merges in the order of the list, <|startoftext|>, <|endoftext|>. Text: NFC, blanks, lower case,
// as transformers does; open_clip's cleaning of a text is the caller's (text_clean.h).
// Source: open_clip, simple_tokenizer; bpe_simple_vocab_16e6.txt.gz.
#ifndef JOMED_HOST_CLIP_MERGES_H
#define JOMED_HOST_CLIP_MERGES_H

#include "tokenizer.h"

// The list, unpacked: a header line, then one merge per line. Error: EXIT_BAD_DATA.
Error tokenizer_from_clip_merges(Tokenizer **out, const char *text, size_t size);
// The same as it is published, by gzip.
Error tokenizer_from_clip_gzip(Tokenizer **out, const void *packed, size_t size);

#endif
