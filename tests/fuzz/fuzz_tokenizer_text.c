// fuzz_tokenizer_text: tokenizers in lines: vocab.txt, merges.txt, tiktoken's ranks, CLIP's merges.
// The first byte of the input says which; what belongs beside such a file is fixed here.
#include "fuzz_tokenizer.h"
#include "host/bpe_vocab.h"
#include "host/clip_merges.h"
#include "host/tekken.h"
#include "host/tokenizer_files.h"

static const char gpt2[] = "{\"tokenizer_class\":\"GPT2Tokenizer\"}";
static const char specials[] = "{\"num_special\":3,\"tokens\":{\"<s>\":1,\"</s>\":2}}";

static json_t *json_of(const char *text, size_t size) {
    json_t *root = NULL;
    const Error error = json_parse_new(&root, text, size);
    CHECK(!error.code, "%s", error.text);
    return root;
}

// The symbols of all bytes and a few tokens made of them.
static json_t *names_new(void) {
    static const char *const more[] = {"ab", "abc", "bc", "<|endoftext|>"};
    json_t *root = json_object();
    for (int b = 0; b < 256; b++) {
        char symbol[4];
        const int n = byte_symbol(symbol, (uint8_t)b);
        json_object_setn_new(root, symbol, (size_t)n, json_integer(b));
    }
    for (int i = 0; i < 4; i++) {
        json_object_set_new(root, more[i], json_integer(256 + i));
    }
    return root;
}

FUZZ(tokenizer_text) {
    if (size == 0) {
        return false;
    }
    const char *text = (const char *)data + 1;
    size--;
    Tokenizer *tok = NULL;
    Error error;
    json_t *a = NULL, *b = NULL;
    switch (data[0]) {
    case 'v': error = tokenizer_from_vocab_txt(&tok, text, size, NULL); break;
    case 'm':
        a = names_new();
        b = json_of(gpt2, sizeof gpt2 - 1);
        error = tokenizer_from_merges(
            &tok, &(MergeFiles){.vocab = a, .config = b, .merges = text, .merges_size = size});
        break;
    case 'r':
        a = json_of(specials, sizeof specials - 1);
        error = tokenizer_from_ranks(&tok, text, size, a);
        break;
    case 'c': error = tokenizer_from_clip_merges(&tok, text, size); break;
    case 'z': error = tokenizer_from_clip_gzip(&tok, text, size); break;
    default: return false;
    }
    json_decref(a);
    json_decref(b);
    return fuzz_tokenizer(tok, error);
}
