// tokenizer: text to token ids and back.
//
// Every kind is a table of pieces (what an id stands for) plus a rule that cuts text into them:
//
//   tiny        words of a list, bytes for the rest                      (the demo)
//   wordpiece   normalizer, splitter, longest pieces of each word        (BERT, PubMedBERT)
//   bpe         normalizer, splitter, byte-pair merges of each piece     (CLIP, Qwen2-VL, Tekken)
//
// Special tokens ("<|image_pad|>", "[CLS]") are ids that plain text never produces: whoever builds
// a prompt puts them in by id, so a caption that spells one out is just text.
// tokenizer_encode_special is the other way, as Hugging Face does it. Nothing is put around, cut or
// padded: `before` and `after` say what belongs around a text, and the caller knows the room; the
// truncation and padding that a file states are not obeyed.
// Text that is not UTF-8 is read with U+FFFD for each maximal part that is not; `tiny` takes any
// bytes. A tokenizer has scratch memory and a cache: it serves one thread at a time.
#ifndef JOMED_HOST_TOKENIZER_H
#define JOMED_HOST_TOKENIZER_H

#include "added.h"
#include "bpe.h"
#include "normalizer.h"
#include "piece_cache.h"
#include "splitter.h"
#include "vocab.h"
#include "wordpiece.h"

typedef enum { TOKENIZER_TINY, TOKENIZER_WORDPIECE, TOKENIZER_BPE } TokenizerKind;
enum { TOKENIZER_AROUND = 8 }; // most ids before or after a text

typedef struct {
    PieceCache cache;
    char *text; // repaired
    int32_t *ids; // of one piece
    size_t text_room, ids_room;
} TokenizerScratch;

typedef struct {
    TokenizerKind kind;
    int vocab;          // ids are 0 .. vocab-1
    Vocab table;        // (vocab) what ids stand for; for bpe the bytes that they decode to
    AddedTokens added;  // special tokens and other added ones
    int32_t before[TOKENIZER_AROUND], after[TOKENIZER_AROUND]; // what the model wants around a text
    int before_count, after_count;
    int first_byte;     // tiny: id of byte 0; byte b is first_byte + b
    Normalizer *normalizer;
    Splitter splitter;
    WordPiece wordpiece;
    Bpe *bpe;
    bool is_whole_first;    // bpe: a piece that is in the table is its id, without merging
    bool has_word_ends;     // bpe: pieces that end words carry a blank; decoding trims the text
    bool cleans_text;       // texts go through text_clean first
    bool cleans_up;         // wordpiece: decoding closes up punctuation
    TokenizerScratch *scratch;
    uint64_t hash;          // of all that decides about ids: equal tokenizers, equal hash
} Tokenizer;

// `tiny`: ids are the n special tokens, then the m listed words, then the 256 bytes.
// Text is cut into runs of blanks (space, \t \n \v \f \r) and runs of anything else. A run that is
// a listed word becomes its id, any other run its bytes. Exactly one space between two listed words
// is not written: decoding puts it back. So decode(encode(x)) == x for any bytes x, and with m = 0
// this is the plain byte tokenizer. Names and words must differ from each other and not be empty;
// words hold no blanks. [CLS] goes before a text and [SEP] after it where they are among the
// specials. Breaking this is our bug, not the user's.
Tokenizer *tokenizer_tiny_new(const char *const *specials, int n, const char *const *words, int m);
void tokenizer_free(Tokenizer *tok);

// Number of ids the text gives, which may be more than max; the first min(number, max) are written.
// ids may be NULL when max is 0. Any bytes are accepted. Special tokens are not recognised; added
// tokens that are not special are. Equal to tokenizers' encode(add_special_tokens=False) with
// encode_special_tokens.
int tokenizer_encode(const Tokenizer *tok, const char *text, size_t size, int32_t *ids, int max);
// The same with special tokens recognised where the text spells them.
int tokenizer_encode_special(const Tokenizer *tok, const char *text, size_t size, int32_t *ids,
                             int max);

// From now on texts are cleaned first, as open_clip does for its CLIP and BiomedCLIP
// (text_clean.h).
void tokenizer_clean_texts(Tokenizer *tok);

// Text of n ids, NUL-terminated; *size (may be NULL) without that NUL. The caller frees. Bytes that
// are not UTF-8 become U+FFFD, except with `tiny`, which gives back any bytes. Ids outside the
// vocabulary are our bug.
//   DECODE_SPECIAL  special tokens are written too
//   DECODE_OPEN     more ids will follow: what they could change is held back (a character cut
//                   short, a trailing blank), so that the text of every beginning is a beginning
enum { DECODE_TEXT = 0, DECODE_SPECIAL = 1, DECODE_OPEN = 2 };
char *tokenizer_decode_new(const Tokenizer *tok, const int32_t *ids, int n, int how, size_t *size);
// The same where a text ends at its NUL: a NUL inside becomes SUBSTITUTE (0x1a).
char *tokenizer_text_new(const Tokenizer *tok, const int32_t *ids, int n, int how);
// Id of a special token by its exact name, or -1.
int32_t tokenizer_id(const Tokenizer *tok, const char *special);

// ---- for those who make one ----
// A tokenizer of that kind with an empty table of so many ids; scratch and parts allocated.
Tokenizer *tokenizer_new(TokenizerKind kind, int vocab);
// Makes the table that of names, which it empties, for a wordpiece model.
// Error: no such unknown token, a prefix that is too long.
Error wordpiece_from_names(Tokenizer *tok, Vocab *names, const char *unknown, const char *prefix,
                           int max_chars);
// Adds a token whose id has a piece already; content and size are made from its name, normalised
// when it is to be sought in normalised text, so the normalizer must have begun.
// Error: a token that is empty or there twice.
Error tokenizer_add(Tokenizer *tok, const AddedToken *token);
// When all else is set: makes the hash.
void tokenizer_finish(Tokenizer *tok);

#endif
