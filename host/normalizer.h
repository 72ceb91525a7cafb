// normalizer: what is done to text before it is cut: a short list of steps.
//
//   NFC       canonical composition
//   BLANKS    every run of white space becomes one space
//   LOWER     lower case, character by character
//   BERT      drop control characters, white space to spaces; blanks around Chinese characters;
//             decompose and drop accents; lower case: each as its switch says, in this order
//
// ASCII text takes a table of 128 entries, made from the steps themselves; text that only wants NFC
// and has no character from U+0300 on is handed back as it is.
// Left out: every other normalizer of tokenizer.json (refused by name there).
// Source: Hugging Face tokenizers, normalizers; bert/tokenization.py.
#ifndef JOMED_HOST_NORMALIZER_H
#define JOMED_HOST_NORMALIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { NORMALIZE_NFC, NORMALIZE_BLANKS, NORMALIZE_LOWER, NORMALIZE_BERT } NormalizeStep;
enum { NORMALIZER_STEPS = 8 };

typedef struct {
    NormalizeStep steps[NORMALIZER_STEPS];
    int count;
    bool clean_text, chinese, strip_accents, lowercase; // of BERT
    int16_t ascii[128];                                 // one character alone; -1: dropped
    // Scratch, kept from text to text.
    int32_t *code[2];
    size_t code_room;
    char *text;
    size_t text_room;
} Normalizer;

// Steps and switches are set; this fills the table. BERT stands alone.
void normalizer_begin(Normalizer *normalizer);
void normalizer_free(Normalizer *normalizer);
// The normalised text, valid until the next call; may be `text` itself. text: valid UTF-8.
const char *normalizer_run(Normalizer *normalizer, const char *text, size_t size, size_t *out_size);

#endif
