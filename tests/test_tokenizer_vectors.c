// Small tokenizers of every form, read from tokenizer.json, against vectors of Hugging Face's
// library (tools/vectors_tokenizers.py); what the reader refuses; damaged files.
#include <stdlib.h>
#include <string.h>

#include "host/clip_merges.h"
#include "host/json.h"
#include "host/tekken.h"
#include "host/tokenizer_files.h"
#include "host/tokenizer_json.h"
#include "tests/check.h"

enum { ROOM = 4096 };

static json_t *read_sets(void) {
    json_t *sets = NULL;
    const char *path = check_fixture("tokenizers.json");
    EXPECT(path && json_read_new(&sets, path, 1 << 20).code == EXIT_OK, "no vectors");
    EXPECT(!sets || json_array_size(sets) == 8, "%zu tokenizers", json_array_size(sets));
    return sets;
}

static const json_t *find_set(const json_t *sets, const char *name) {
    for (size_t i = 0; i < json_array_size(sets); i++) {
        const json_t *set = json_array_get(sets, i);
        if (strcmp(json_string_value(json_object_get(set, "name")), name) == 0) {
            return set;
        }
    }
    CHECK(false, "no set '%s'", name);
    return NULL;
}

// ---- vectors ----
typedef int encode_fn(const Tokenizer *, const char *, size_t, int32_t *, int);

static void expect_ids(encode_fn *encode, const Tokenizer *tok, const json_t *row, const char *key,
                       int32_t ids[ROOM], int *n) {
    const char *text = json_string_value(json_object_get(row, "text"));
    const json_t *want = json_object_get(row, key);
    *n = encode(tok, text, strlen(text), ids, ROOM);
    EXPECT((size_t)*n == json_array_size(want), "'%s' %s: %d ids, want %zu", text, key, *n,
           json_array_size(want));
    for (int i = 0; i < *n && (size_t)i < json_array_size(want); i++) {
        const int id = (int)json_integer_value(json_array_get(want, (size_t)i));
        EXPECT(ids[i] == id, "'%s' %s: id %d is %d, want %d", text, key, i, ids[i], id);
    }
}

static void expect_text(const Tokenizer *tok, const json_t *row, const char *key, int how,
                        const int32_t *ids, int n) {
    size_t size;
    const json_t *want = json_object_get(row, key);
    char *text = tokenizer_decode_new(tok, ids, n, how, &size);
    EXPECT(size == json_string_length(want) && memcmp(text, json_string_value(want), size) == 0,
           "%s is '%s', want '%s'", key, text, json_string_value(want));
    // Held back while more may come: every beginning decodes to a beginning of the whole.
    for (int part = 0; part <= n; part++) {
        size_t length;
        char *open = tokenizer_decode_new(tok, ids, part, how | DECODE_OPEN, &length);
        EXPECT(length <= size && memcmp(open, text, length) == 0, "%d of %d ids give '%s' of '%s'",
               part, n, open, text);
        free(open);
    }
    free(text);
}

TEST(tokenizer_vectors) {
    json_t *sets = read_sets();
    for (size_t s = 0; s < json_array_size(sets); s++) {
        const json_t *set = json_array_get(sets, s), *rows = json_object_get(set, "rows");
        if (!CASE("%s", json_string_value(json_object_get(set, "name")))) {
            continue;
        }
        Tokenizer *tok;
        const Error error = tokenizer_from_json(&tok, json_object_get(set, "tokenizer"));
        EXPECT(error.code == EXIT_OK && json_array_size(rows) == 26, "%s", error.text);
        for (size_t i = 0; tok && i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            int32_t ids[ROOM];
            int n;
            expect_ids(tokenizer_encode, tok, row, "plain", ids, &n);
            const bool has_special = json_object_get(row, "special");
            expect_ids(tokenizer_encode_special, tok, row, has_special ? "special" : "plain", ids,
                       &n);
            const bool has_back = json_object_get(row, "back_special");
            expect_text(tok, row, "back", DECODE_TEXT, ids, n);
            expect_text(tok, row, has_back ? "back_special" : "back", DECODE_SPECIAL, ids, n);
        }
        tokenizer_free(tok);
    }
    json_decref(sets);
}

TEST(tokenizer_splits) {
    json_t *rules = NULL;
    const char *path = check_fixture("splits.json");
    EXPECT(path && json_read_new(&rules, path, 1 << 20).code == EXIT_OK, "no vectors");
    EXPECT(!rules || json_array_size(rules) == 6, "%zu rules", json_array_size(rules));
    for (size_t r = 0; r < json_array_size(rules); r++) {
        const json_t *rule = json_array_get(rules, r), *rows = json_object_get(rule, "texts");
        const char *regex = json_string_value(json_object_get(rule, "regex"));
        const Splitter splitter = regex[0] ? splitter_from_regex(regex) : CUT_BERT;
        EXPECT(splitter == (Splitter)r && json_array_size(rows) == 47, "rule %zu is %d", r,
               (int)splitter);
        for (size_t i = 0; i < json_array_size(rows) && splitter < CUT_COUNT; i++) {
            const char *text = json_string_value(json_array_get(json_array_get(rows, i), 0));
            const json_t *want = json_array_get(json_array_get(rows, i), 1);
            size_t begin = 0, end, n = 0;
            for (; splitter_next(splitter, text, strlen(text), &begin, &end); begin = end, n++) {
                const json_t *piece = json_array_get(want, n);
                EXPECT(json_string_length(piece) == end - begin &&
                           memcmp(json_string_value(piece), text + begin, end - begin) == 0,
                       "rule %zu, '%s': piece %zu is '%.*s', want '%s'", r, text, n,
                       (int)(end - begin), text + begin, json_string_value(piece));
            }
            EXPECT(n == json_array_size(want), "rule %zu, '%s': %zu pieces", r, text, n);
        }
    }
    json_decref(rules);
}

// A cache that has been filled and emptied again changes nothing.
TEST(tokenizer_cache) {
    json_t *sets = read_sets();
    Tokenizer *tok = NULL;
    if (sets) {
        const json_t *set = find_set(sets, "qwen2, odd added tokens");
        tokenizer_from_json(&tok, json_object_get(set, "tokenizer"));
    }
    for (int round = 0; tok && round < 60000; round++) {
        char text[64];
        int32_t first[64], again[64];
        const int size = snprintf(text, sizeof text, "word%s", round % 3 ? "" : " the lesion");
        for (int i = 0, left = round; i < 4; i++, left /= 26) {
            text[i] = (char)('a' + left % 26);
        }
        const int n = tokenizer_encode(tok, text, (size_t)size, first, 64);
        const int m = tokenizer_encode(tok, text, (size_t)size, again, 64);
        EXPECT(n == m && memcmp(first, again, (size_t)n * sizeof *first) == 0, "'%s'", text);
        char *back = tokenizer_decode_new(tok, first, n, DECODE_TEXT, NULL);
        EXPECT(strcmp(back, text) == 0, "'%s' comes back as '%s'", text, back);
        free(back);
    }
    tokenizer_free(tok);
    json_decref(sets);
}

// ---- refusals ----
typedef struct {
    const char *set, *path, *value, *wants; // value: JSON; "" removes the member
} Refusal;

// Puts a copy of the set's file through one change.
static json_t *changed_new(const json_t *sets, const Refusal *refusal) {
    json_t *root = json_deep_copy(json_object_get(find_set(sets, refusal->set), "tokenizer"));
    json_t *at = root;
    const char *name = refusal->path;
    for (const char *dot; (dot = strchr(name, '.')); name = dot + 1) {
        char part[64];
        snprintf(part, sizeof part, "%.*s", (int)(dot - name), name);
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(part)) : json_object_get(at, part);
    }
    json_t *value = json_loads(refusal->value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    CHECK(at && (value || !refusal->value[0]), "'%s' in '%s'", refusal->value, refusal->path);
    if (!value) {
        json_object_del(at, name);
    } else if (json_is_array(at)) {
        json_array_set_new(at, (size_t)atoi(name), value);
    } else {
        json_object_set_new(at, name, value);
    }
    return root;
}

static const Refusal refusals[] = {
    {"bert", "normalizer", "{\"type\": \"Precompiled\"}", "normalizer: type 'Precompiled'"},
    {"bert", "normalizer.trim", "1", "normalizer: member 'trim'"},
    {"bert", "normalizer.lowercase", "3", "normalizer: member 'lowercase' wants true or false"},
    {"bert", "normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, "
                           "{\"type\": \"BertNormalizer\"}]}", "BertNormalizer beside"},
    {"bert", "pre_tokenizer", "{\"type\": \"Metaspace\"}", "pre_tokenizer: type 'Metaspace'"},
    {"bert", "pre_tokenizer", "null", "pre_tokenizer: none"},
    {"bert", "pre_tokenizer", "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
     "ByteLevel and a BPE model"},
    {"bert", "post_processor.single", "[]", "post_processor: single has no text"},
    {"bert", "post_processor.special_tokens", "{}", "post_processor: member '[CLS]'"},
    {"bert", "post_processor", "{\"type\": \"BertProcessing\", \"sep\": [\"x\", 9999], "
                               "\"cls\": [\"y\", 2]}", "id 9999 is outside"},
    {"bert", "decoder", "{\"type\": \"CTC\"}", "decoder: type 'CTC'"},
    {"bert", "decoder.prefix", "\"@@\"", "decoder: prefix '@@'"},
    {"bert", "model.type", "\"Unigram\"", "model: type 'Unigram'"},
    {"bert", "model.unk_token", "\"[unknown]\"", "unknown token '[unknown]'"},
    {"bert", "model.max_input_chars_per_word", "100000", "is outside 1 .. 1000"},
    {"bert", "model.vocab.chest", "-1", "token 'chest': its id"},
    {"bert", "model.vocab.chest", "99999999", "token 'chest': its id"},
    {"bert", "model.vocab.chest", "\"a\"", "token 'chest': its id"},
    {"bert", "model.vocab.chest", "2", "model: token 2 has an id that another token has"},
    {"bert", "model.vocab", "[]", "model: member 'vocab' wants an object"},
    {"bert", "added_tokens.0.id", "7", "added token '[PAD]' has id 7, and 0"},
    {"bert", "added_tokens.0.content", "\"\"", "added token '' has the id 0"},
    {"bert", "added_tokens.1.content", "\"[PAD]\"", "[PAD]' has id 1, and 0"},
    {"bert", "added_tokens.0.content", "\"a\\u0000b\"", "'content' holds a NUL character"},
    {"bert", "added_tokens.0.colour", "1", "added_tokens: member 'colour'"},
    {"bert", "added_tokens.0.content", "\"[NEW]\"", "id 0, which another token has"},
    {"bert", "colour", "1", "member 'colour'"},
    {"bert", "model", "", "member 'model' is missing"},
    {"gpt2", "pre_tokenizer.add_prefix_space", "true", "add_prefix_space true"},
    {"gpt2", "pre_tokenizer.add_prefix_space", "", "add_prefix_space true"},
    {"gpt2", "pre_tokenizer.use_regex", "false", "without an expression"},
    {"gpt2", "model.dropout", "0.1", "model: dropout"},
    {"gpt2", "model.byte_fallback", "true", "model: byte_fallback true"},
    {"gpt2", "model.continuing_subword_prefix", "\"##\"", "continuing_subword_prefix"},
    {"gpt2", "model.merges.0", "[\"zz\", \"a\"]", "merge 1, 'zz' and 'a': the left one"},
    {"gpt2", "model.merges.0", "[\"a\", \"zz\"]", "'a' and 'zz': the right one"},
    {"gpt2", "model.merges.0", "[\"!\", \"~\"]", "the result is no token"},
    {"gpt2", "model.merges.0", "\"abc\"", "merge 1 is not two tokens"},
    {"gpt2", "model.merges.0", "\"a b c\"", "merge 1 is not two tokens"},
    {"gpt2", "model.vocab.!", "", "no token for byte 0x21"},
    {"gpt2", "decoder", "null", "decoder: type ''"},
    {"clip", "model.ignore_merges", "true", "ignore_merges with an end_of_word_suffix"},
    {"clip", "normalizer.normalizers.1.pattern.Regex", "\"x+\"", "Replace of 'x+'"},
    {"clip", "pre_tokenizer.pretokenizers.0.behavior", "\"Isolated\"", "behavior 'Isolated'"},
    {"clip", "pre_tokenizer.pretokenizers.0.pattern.Regex", "\"[a-z]+\"",
     "expression '[a-z]+' is not supported"},
    {"llama3", "pre_tokenizer.pretokenizers.1.use_regex", "true", "use_regex true after"},
    {"llama3", "pre_tokenizer.pretokenizers.0.invert", "true", "invert true"},
};

TEST(tokenizer_json_refuses) {
    json_t *sets = read_sets();
    for (size_t i = 0; sets && i < sizeof refusals / sizeof *refusals; i++) {
        const Refusal *refusal = &refusals[i];
        if (!CASE("%s %s %zu", refusal->set, refusal->path, i)) {
            continue;
        }
        json_t *json = changed_new(sets, refusal);
        Tokenizer *tok;
        const Error error = tokenizer_from_json(&tok, json);
        EXPECT(error.code == EXIT_BAD_DATA && !tok && strstr(error.text, refusal->wants),
               "'%s', which lacks '%s'", error.text, refusal->wants);
        EXPECT(!strchr(error.text, '\n'), "'%s' is more than a line", error.text);
        tokenizer_free(tok);
        json_decref(json);
    }
    json_decref(sets);
}

TEST(tokenizer_json_merge_twice) {
    json_t *sets = read_sets();
    json_t *root = json_deep_copy(json_object_get(find_set(sets, "gpt2"), "tokenizer"));
    json_t *merges = json_object_get(json_object_get(root, "model"), "merges");
    json_array_append(merges, json_array_get(merges, 0));
    Tokenizer *tok;
    const Error error = tokenizer_from_json(&tok, root);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "there twice"), "'%s'", error.text);
    json_decref(root);
    json_decref(sets);
}

// Old files write merges as one text each, and leave out what has defaults. Truncation and padding
// are the caller's, whatever the file says: all-MiniLM's says 128.
TEST(tokenizer_json_legacy) {
    json_t *sets = read_sets();
    json_t *root = json_deep_copy(json_object_get(find_set(sets, "gpt2"), "tokenizer"));
    json_t *model = json_object_get(root, "model"), *merges = json_object_get(model, "merges");
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *pair = json_array_get(merges, i);
        json_array_set_new(merges, i,
                           json_sprintf("%s %s", json_string_value(json_array_get(pair, 0)),
                                        json_string_value(json_array_get(pair, 1))));
    }
    static const char *const gone[] = {"type", "dropout", "byte_fallback", "ignore_merges",
                                       "fuse_unk", "unk_token"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        json_object_del(model, gone[i]);
    }
    json_object_set_new(root, "truncation", json_pack("{si}", "max_length", 2));
    json_object_set_new(root, "padding", json_pack("{s{si}}", "strategy", "Fixed", 128));
    EXPECT(json_is_object(json_object_get(root, "truncation")) &&
               json_is_object(json_object_get(root, "padding")), "limits are set");
    Tokenizer *tok, *same;
    const Error error = tokenizer_from_json(&tok, root);
    EXPECT(error.code == EXIT_OK, "%s", error.text);
    const json_t *original = json_object_get(find_set(sets, "gpt2"), "tokenizer");
    EXPECT(tokenizer_from_json(&same, original).code == EXIT_OK && tok && tok->hash == same->hash,
           "another tokenizer");
    int32_t ids[ROOM];
    EXPECT(tok && tokenizer_encode(tok, "~~~~~", 5, ids, ROOM) == 5, "cut at the file's limit");
    tokenizer_free(tok);
    tokenizer_free(same);
    json_decref(root);
    json_decref(sets);
}
