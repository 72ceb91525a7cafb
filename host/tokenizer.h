// tokenizer: text to token ids and back.
//
// Every kind of tokenizer is a table of pieces (what an id stands for) plus a rule that cuts text
// into them. Special tokens ("<|image_pad|>", "[CLS]") are ids that text can never produce: whoever
// builds a prompt puts them in by id, so a caption that spells one out is just text.
#ifndef JOMED_HOST_TOKENIZER_H
#define JOMED_HOST_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { TOKENIZER_TINY } TokenizerKind;
typedef enum { PIECE_SPECIAL, PIECE_WORD, PIECE_BYTE } PieceKind;
typedef struct {
    char *bytes; // owned, may hold NUL bytes; size of them, then one NUL
    int size;
    PieceKind kind;
} Piece;

typedef struct {
    TokenizerKind kind;
    int vocab;      // ids are 0 .. vocab-1
    Piece *pieces;  // (vocab)
    int first_byte; // id of byte 0; byte b is first_byte + b
    int32_t *slots; // open hash table from bytes to id, of specials and words
    int slot_count; // a power of two
    uint64_t hash;  // of the kind and all pieces: equal tokenizers, equal hash
} Tokenizer;

// `tiny`: ids are the n special tokens, then the m listed words, then the 256 bytes.
// Text is cut into runs of blanks (space, \t \n \v \f \r) and runs of anything else. A run that is
// a listed word becomes its id, any other run its bytes. Exactly one space between two listed words
// is not written: decoding puts it back. So decode(encode(x)) == x for any bytes x, and with m = 0
// this is the plain byte tokenizer. Names and words must differ from each other and not be empty;
// words hold no blanks. Breaking this is our bug, not the user's.
Tokenizer *tokenizer_tiny_new(const char *const *specials, int n, const char *const *words, int m);
void tokenizer_free(Tokenizer *tok);

// Number of ids the text gives, which may be more than max; the first min(number, max) are written.
// ids may be NULL when max is 0. Any bytes are accepted, valid UTF-8 or not.
int tokenizer_encode(const Tokenizer *tok, const char *text, size_t size, int32_t *ids, int max);
// The text of n ids, special tokens left out, NUL-terminated; *size (may be NULL) without that NUL.
// The caller frees. Ids outside the vocabulary are our bug.
char *tokenizer_decode_new(const Tokenizer *tok, const int32_t *ids, int n, size_t *size);
// Id of a special token by its exact name, or -1.
int32_t tokenizer_id(const Tokenizer *tok, const char *special);

#endif
