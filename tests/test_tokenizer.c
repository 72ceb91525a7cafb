// The tokenizer `tiny`: ids by hand, and any bytes come back.
#include <stdlib.h>
#include <string.h>

#include "host/tokenizer.h"
#include "tests/check.h"

static const char *const specials[] = {"[PAD]", "[CLS]", "<|image_pad|>"};
static const char *const words[] = {"small", "lesion", ",", "upper-left", "small-"};
enum { SPECIALS = 3, WORDS = 5, FIRST_BYTE = SPECIALS + WORDS, ROOM = 512 };

static void expect_ids(const Tokenizer *tok, const char *text, const int32_t *want, int n) {
    int32_t ids[ROOM];
    const int got = tokenizer_encode(tok, text, strlen(text), ids, ROOM);
    EXPECT(got == n, "'%s' gives %d ids, want %d", text, got, n);
    for (int i = 0; i < n && i < got; i++) {
        EXPECT(ids[i] == want[i], "'%s' id %d is %d, want %d", text, i, ids[i], want[i]);
    }
}

TEST(tokenizer_tiny_ids) {
    Tokenizer *tok = tokenizer_tiny_new(specials, SPECIALS, words, WORDS);
    EXPECT(tok->vocab == FIRST_BYTE + 256, "vocab %d", tok->vocab);
    EXPECT(tokenizer_id(tok, "<|image_pad|>") == 2, "image pad");
    EXPECT(tokenizer_id(tok, "small") == -1, "a word is no special token");
    EXPECT(tokenizer_id(tok, "[SEP]") == -1, "unknown name");
    expect_ids(tok, "", NULL, 0);
    expect_ids(tok, "small lesion , upper-left", (int32_t[]){3, 4, 5, 6}, 4);
    // A blank that is not one space between two words is written out.
    const int B = FIRST_BYTE;
    expect_ids(tok, " small", (int32_t[]){B + ' ', 3}, 2);
    expect_ids(tok, "small\nlesion", (int32_t[]){3, B + '\n', 4}, 3);
    expect_ids(tok, "small  lesion ", (int32_t[]){3, B + ' ', B + ' ', 4, B + ' '}, 5);
    expect_ids(tok, "small ab lesion", (int32_t[]){3, B + ' ', B + 'a', B + 'b', B + ' ', 4}, 6);
    // Text that spells a special token stays text.
    expect_ids(tok, "[CLS]", (int32_t[]){B + '[', B + 'C', B + 'L', B + 'S', B + ']'}, 5);
    // Whole words only.
    expect_ids(tok, "smal", (int32_t[]){B + 's', B + 'm', B + 'a', B + 'l'}, 4);
    tokenizer_free(tok);
}

TEST(tokenizer_count_beyond_room) {
    Tokenizer *tok = tokenizer_tiny_new(specials, SPECIALS, words, WORDS);
    int32_t ids[3] = {-7, -7, -7};
    EXPECT(tokenizer_encode(tok, "small lesion small", 18, ids, 2) == 3, "counts all");
    EXPECT(ids[0] == 3 && ids[1] == 4 && ids[2] == -7, "writes only two");
    EXPECT(tokenizer_encode(tok, "small", 5, NULL, 0) == 1, "no room at all");
    tokenizer_free(tok);
}

TEST(tokenizer_decode_drops_specials) {
    Tokenizer *tok = tokenizer_tiny_new(specials, SPECIALS, words, WORDS);
    char *text = tokenizer_decode_new(tok, (int32_t[]){1, 3, 2, 4, 0}, 5, DECODE_TEXT, NULL);
    EXPECT(strcmp(text, "small lesion") == 0, "'%s'", text);
    free(text);
    tokenizer_free(tok);
}

// Random strings over an alphabet rich in words, blanks and specials, and over all 256 bytes.
TEST(tokenizer_round_trip) {
    static const char *const parts[] = {"small", "lesion", " ", " ", "\t", ",", "[CLS]",
                                        "\xc3\xa9", "small-", "x",  "\n", "\xff"};
    for (int with_words = 0; with_words < 2; with_words++) {
        if (!CASE("words=%d", with_words)) {
            continue;
        }
        Tokenizer *tok = tokenizer_tiny_new(specials, SPECIALS, words, with_words ? WORDS : 0);
        Rng rng = check_rng((uint32_t)with_words);
        for (int round = 0; round < 4000; round++) {
            char text[ROOM];
            size_t size = 0;
            const uint32_t count = rng_below(&rng, 24);
            for (uint32_t i = 0; i < count; i++) {
                const char *part = parts[rng_below(&rng, sizeof parts / sizeof *parts)];
                const char byte = (char)rng_below(&rng, 256);
                const size_t n = round % 2 ? 1 : strlen(part);
                memcpy(text + size, round % 2 ? &byte : part, n);
                size += n;
            }
            int32_t ids[ROOM];
            const int n = tokenizer_encode(tok, text, size, ids, ROOM);
            for (int i = 0; i < n; i++) {
                EXPECT(ids[i] >= SPECIALS, "text gave the special id %d", ids[i]);
            }
            EXPECT(with_words || n == (int)size, "%d ids for %zu bytes", n, size);
            size_t back_size;
            char *back = tokenizer_decode_new(tok, ids, n, DECODE_TEXT, &back_size);
            EXPECT(back_size == size && memcmp(back, text, size) == 0, "round %d: '%.*s'", round,
                   (int)size, text);
            free(back);
        }
        tokenizer_free(tok);
    }
}

TEST(tokenizer_hash) {
    Tokenizer *a = tokenizer_tiny_new(specials, SPECIALS, words, WORDS);
    Tokenizer *b = tokenizer_tiny_new(specials, SPECIALS, words, WORDS);
    Tokenizer *c = tokenizer_tiny_new(specials, SPECIALS, words, WORDS - 1);
    Tokenizer *d = tokenizer_tiny_new(specials, SPECIALS - 1, words, WORDS);
    EXPECT(a->hash == b->hash, "equal tokenizers");
    EXPECT(a->hash != c->hash && a->hash != d->hash && c->hash != d->hash, "different ones");
    tokenizer_free(a);
    tokenizer_free(b);
    tokenizer_free(c);
    tokenizer_free(d);
}
