// added: tokens beside the vocabulary of the model, found in text by their content: the special
// tokens, and whatever else was added later.
//
// Matches are leftmost, and longest among those that start together. single_word: only between
// characters that are no word characters. lstrip, rstrip: the blanks beside it belong to the match.
// normalized: sought in the normalised text (content is normalised too), else in the raw one.
// Left out: searching by an automaton; a text is compared only where a first byte fits.
// Source: Hugging Face tokenizers, added_vocabulary.rs.
#ifndef JOMED_HOST_ADDED_H
#define JOMED_HOST_ADDED_H

#include "kernels/base.h"

typedef struct {
    char *name;    // as in the file, owned
    char *content; // what is sought, owned
    size_t size;   // of content
    int32_t id;
    bool single_word, lstrip, rstrip, is_normalized, is_special;
} AddedToken;

typedef struct {
    AddedToken *tokens; // longest content first
    int count, room;
    bool starts[256];   // first bytes of contents
    bool has[2];        // any token in the raw [0], in the normalised text [1]
    bool has_plain[2];  // the same, of those that are not special
} AddedTokens;

// Takes a copy of *token. Order of adding does not matter.
void added_put(AddedTokens *added, const AddedToken *token);
void added_free(AddedTokens *added);

typedef struct {
    size_t begin, end;       // of the match with its blanks
    const AddedToken *token; // NULL: no match from here on
} AddedMatch;
// The next match at or after `from`, the end of the match before; its blanks do not lie before it
// either. Special tokens are passed over, whole, unless with_special. text: valid UTF-8.
AddedMatch added_find(const AddedTokens *added, const char *text, size_t size, size_t from,
                      bool in_normalized, bool with_special);
const AddedToken *added_by_name(const AddedTokens *added, const char *name); // or NULL
uint64_t added_hash(const AddedTokens *added, uint64_t seed);

#endif
