// wordpiece: one word as the longest pieces from the left.
//
// A piece inside a word is looked up with `prefix` ("##") in front. If anywhere no piece fits, or
// the word has more than max_chars characters, the whole word is the unknown token.
// Source: Schuster and Nakajima 2012; bert/tokenization.py.
#ifndef JOMED_HOST_WORDPIECE_H
#define JOMED_HOST_WORDPIECE_H

#include "vocab.h"

enum { WORDPIECE_MOST_CHARS = 1000, WORDPIECE_MOST_PREFIX = 16 };
typedef struct {
    char prefix[WORDPIECE_MOST_PREFIX + 1];
    int max_chars;
    int32_t unknown;
    int longest; // bytes of the longest piece
} WordPiece;

// out has room for size ids; returns their number. word: valid UTF-8, size >= 1.
int wordpiece_encode(const WordPiece *model, const Vocab *vocab, const char *word, size_t size,
                     int32_t *out);

#endif
