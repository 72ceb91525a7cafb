// fuzz_tokenizer: what any tokenizer that a file makes must stand.
#ifndef JOMED_TESTS_FUZZ_FUZZ_TOKENIZER_H
#define JOMED_TESTS_FUZZ_FUZZ_TOKENIZER_H

#include <stdlib.h>

#include "fuzz.h"
#include "host/tokenizer.h"

// Encodes a text and decodes the ids, and frees tok; false and nothing when error holds one.
static inline bool fuzz_tokenizer(Tokenizer *tok, Error error) {
    if (!fuzz_accepts(error)) {
        CHECK(!tok, "a refused file left a tokenizer");
        return false;
    }
    static const char text[] = "A b, ab  [CLS]<|endoftext|>'ll 12\n \xc3\xa9\xe4\xb8\xad\xff lower";
    enum { ROOM = 256 };
    int32_t ids[ROOM];
    for (int is_special = 0; is_special < 2; is_special++) {
        const int n = (is_special ? tokenizer_encode_special : tokenizer_encode)(
            tok, text, sizeof text - 1, ids, ROOM);
        CHECK(n >= 0, "%d ids", n);
        const int count = n < ROOM ? n : ROOM;
        for (int i = 0; i < count; i++) {
            CHECK(ids[i] >= 0 && ids[i] < tok->vocab, "id %d of %d", ids[i], tok->vocab);
        }
        for (int how = DECODE_TEXT; how <= DECODE_OPEN; how++) {
            free(tokenizer_decode_new(tok, ids, count, how, NULL));
        }
    }
    tokenizer_free(tok);
    return true;
}

#endif
