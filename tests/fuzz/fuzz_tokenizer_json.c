// fuzz_tokenizer_json: tokenizer.json and tekken.json.
#include "fuzz_tokenizer.h"
#include "host/tekken.h"
#include "host/tokenizer_json.h"

FUZZ(tokenizer_json) {
    json_t *root = NULL;
    if (!fuzz_accepts(json_parse_nul_new(&root, data, size))) {
        return false;
    }
    Tokenizer *tok = NULL;
    const Error error = json_object_get(root, "config") ? tokenizer_from_tekken(&tok, root)
                                                        : tokenizer_from_json(&tok, root);
    json_decref(root);
    return fuzz_tokenizer(tok, error);
}
