// Tokenizers of published models against ids that other implementations computed: encode, decode.
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/jsonl.h"
#include "host/tokenizer_files.h"
#include "tests/check.h"
#include "tests/tokenizer_folders.h"

enum { ROOM = 4096, MOST_FILE = 1 << 24 };

static Tokenizer *open_folder(const char *path) {
    Tokenizer *tok;
    const Error error = tokenizer_open_new(&tok, path);
    EXPECT(error.code == EXIT_OK, "%s: %s", path, error.text);
    return tok;
}

static Tokenizer *open_data(const char *path) {
    const char *place = check_data(path);
    return place ? open_folder(place) : NULL;
}

// The vectors hold NUL characters, which our own reader refuses.
static json_t *read_vectors(const char *path) {
    const char *place = check_data(path);
    json_error_t where;
    json_t *vectors = place ? json_load_file(place, JSON_ALLOW_NUL, &where) : NULL;
    EXPECT(!place || vectors, "%s: %s", path, place ? where.text : "");
    return vectors;
}

static void expect_ids(const char *name, const int32_t *got, int n, const json_t *want) {
    EXPECT((size_t)n == json_array_size(want), "%s: %d ids, want %zu", name, n,
           json_array_size(want));
    for (int i = 0; i < n && (size_t)i < json_array_size(want); i++) {
        const int id = (int)json_integer_value(json_array_get(want, (size_t)i));
        EXPECT(got[i] == id, "%s: id %d is %d, want %d", name, i, got[i], id);
    }
}

static int put(int32_t *ids, int n, const int32_t *more, int count) {
    memcpy(ids + n, more, (size_t)count * sizeof *ids);
    return n + count;
}

// before text after, and with a pair: before text after pair after.
static int encode_around(const Tokenizer *tok, const json_t *vector, int32_t ids[ROOM]) {
    static const char *const keys[] = {"text", "text_pair"};
    int n = put(ids, 0, tok->before, tok->before_count);
    for (int i = 0; i < 2; i++) {
        const json_t *text = json_object_get(vector, keys[i]);
        if (json_is_string(text)) {
            n += tokenizer_encode_special(tok, json_string_value(text), json_string_length(text),
                                          ids + n, ROOM - n);
            n = put(ids, n, tok->after, tok->after_count);
        }
    }
    return n;
}

// What transformers' clean_up_tokenization does to a whole text.
static char *clean_up_new(const char *text) {
    static const char *const rules[][2] = {{" .", "."},     {" ?", "?"},   {" !", "!"},
                                           {" ,", ","},     {" ' ", "'"},  {" n't", "n't"},
                                           {" 'm", "'m"},   {" 's", "'s"}, {" 've", "'ve"},
                                           {" 're", "'re"}};
    char *clean = xstrdup(text);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        for (char *at; (at = strstr(clean, rules[i][0]));) {
            char *const next = xformat_new("%.*s%s%s", (int)(at - clean), clean, rules[i][1],
                                           at + strlen(rules[i][0]));
            free(clean);
            clean = next;
        }
    }
    return clean;
}

static void expect_vector(const Tokenizer *tok, const json_t *vector, bool cleans_up) {
    const char *name = json_string_value(json_object_get(vector, "name"));
    const json_t *decoded = json_object_get(vector, "decoded");
    int32_t ids[ROOM];
    const int n = encode_around(tok, vector, ids);
    expect_ids(name, ids, n, json_object_get(vector, "ids"));
    if (!json_is_string(decoded)) {
        return;
    }
    size_t size;
    char *text = tokenizer_decode_new(tok, ids, n, DECODE_SPECIAL, &size);
    if (cleans_up && strlen(text) == size) {
        char *const clean = clean_up_new(text);
        free(text);
        text = clean;
        size = strlen(clean);
    }
    EXPECT(size == json_string_length(decoded) &&
               memcmp(text, json_string_value(decoded), size) == 0,
           "%s decodes to '%s', want '%s'", name, text, json_string_value(decoded));
    free(text);
}

TEST(tokenizer_gold_vectors) {
    static const struct {
        const char *tokenizer, *vectors;
        size_t count;
        bool cleans_up;
    } sets[] = {
        {"tokenizers/bert-base-uncased", "tokenizers/gold/bert-base-uncased.json", 25, true},
        {"tokenizers/biomedbert-abstract", "tokenizers/gold/biomedbert.json", 2, true},
        {"tokenizers/clip-bpe", "tokenizers/gold/clip.json", 21, true},
        {"tokenizers/qwen2", "tokenizers/gold/qwen2.json", 18, false},
    };
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if (!CASE("%s", strrchr(sets[s].vectors, '/') + 1)) {
            continue;
        }
        Tokenizer *tok = open_data(sets[s].tokenizer);
        json_t *vectors = tok ? read_vectors(sets[s].vectors) : NULL;
        EXPECT(!vectors || json_array_size(vectors) == sets[s].count, "%zu vectors",
               json_array_size(vectors));
        for (size_t i = 0; i < json_array_size(vectors); i++) {
            expect_vector(tok, json_array_get(vectors, i), sets[s].cleans_up);
        }
        json_decref(vectors);
        tokenizer_free(tok);
    }
}

// llama.cpp's texts, parted by a line of their own, and its ids, a line for each text.
TEST(tokenizer_gold_llama_cpp) {
    static const char *const sets[][2] = {
        {"tokenizers/qwen2", "tokenizers/gold/ggml-vocab-qwen2.gguf"},
        {"tokenizers/bert-base-uncased", "tokenizers/gold/ggml-vocab-bert-bge.gguf"}};
    static const char part[] = "\n__ggml_vocab_test__\n";
    for (int s = 0; s < 2; s++) {
        char *const inp = xformat_new("%s.inp", sets[s][1]);
        char *const out = xformat_new("%s.out", sets[s][1]);
        Tokenizer *tok = CASE("%s", sets[s][0] + 11) ? open_data(sets[s][0]) : NULL;
        FileBytes texts = {0}, lines = {0};
        if (tok) {
            EXPECT(file_read_new(&texts, check_data(inp), MOST_FILE).code == EXIT_OK, "texts");
            EXPECT(file_read_new(&lines, check_data(out), MOST_FILE).code == EXIT_OK, "ids");
            int count = 0;
            char *line = (char *)lines.data, *at = (char *)texts.data;
            for (char *end; (end = strstr(at, part)); at = end + strlen(part), count++) {
                int32_t ids[ROOM];
                const int n = tokenizer_encode(tok, at, (size_t)(end - at), ids, ROOM);
                const size_t length = strcspn(line, "\n");
                char *next = line;
                for (int i = 0; i < n; i++) {
                    const long want = strtol(next, &next, 10);
                    EXPECT(ids[i] == want, "text %d id %d is %d, want %ld", count, i, ids[i], want);
                }
                EXPECT(strspn(next, " ") == (size_t)(line + length - next),
                       "text %d: more than %d ids are wanted", count, n);
                line += length + 1;
            }
            EXPECT(count == 31, "%d texts", count);
        }
        file_bytes_free(&texts);
        file_bytes_free(&lines);
        tokenizer_free(tok);
        free(inp);
        free(out);
    }
}

TEST(tokenizer_gold_squad) {
    Tokenizer *tok = open_data("tokenizers/bert-base-uncased");
    const char *path = check_data("tokenizers/gold/bert-squad-questions.jsonl");
    FileBytes bytes = {0};
    int rows = 0;
    if (tok && path && file_map_new(&bytes, path).code == EXIT_OK) {
        Jsonl reader;
        jsonl_begin(&reader, path, bytes.data, bytes.size);
        for (json_t *row; jsonl_next(&reader, &row).code == EXIT_OK && row; rows++) {
            int32_t ids[ROOM];
            const char *text = json_string_value(json_object_get(row, "text"));
            const int n = tokenizer_encode(tok, text, strlen(text), ids, ROOM);
            expect_ids(text, ids, n, json_object_get(row, "ids"));
            json_decref(row);
        }
        jsonl_end(&reader);
        EXPECT(rows == 8440, "%d rows", rows);
    }
    file_bytes_free(&bytes);
    tokenizer_free(tok);
}

TEST(tokenizer_gold_tekken) {
    const char *dir = check_tmpdir();
    Tokenizer *tok = pixtral_folder(dir) ? open_folder(dir) : NULL;
    json_t *vectors = tok ? read_vectors("tokenizers/gold/tekken.json") : NULL;
    for (size_t i = 0; i < json_array_size(vectors); i++) {
        const json_t *vector = json_array_get(vectors, i);
        const char *name = json_string_value(json_object_get(vector, "name"));
        const char *text = json_string_value(json_object_get(vector, "text"));
        int32_t ids[ROOM] = {tokenizer_id(tok, "<s>")};
        const int bos = json_is_true(json_object_get(vector, "add_bos"));
        const int n = bos + tokenizer_encode_special(tok, text, strlen(text), ids + bos, ROOM - 1);
        expect_ids(name, ids, n, json_object_get(vector, "ids"));
        char *back = tokenizer_decode_new(tok, ids + bos, n - bos, DECODE_SPECIAL, NULL);
        EXPECT(strcmp(back, text) == 0, "%s comes back as '%s'", name, back);
        free(back);
    }
    EXPECT(!tok || json_array_size(vectors) == 7, "%zu vectors", json_array_size(vectors));
    json_decref(vectors);
    tokenizer_free(tok);
}

TEST(tokenizer_gold_qwen2vl) {
    const char *dir = check_tmpdir();
    Tokenizer *tok = qwen2vl_folder(dir) ? open_folder(dir) : NULL;
    if (tok) {
        static const char text[] = "<|vision_start|><|image_pad|><|vision_end|>Hello world";
        const int32_t want[] = {151652, 151655, 151653, 9707, 1879};
        int32_t ids[ROOM];
        EXPECT(tok->vocab == 151657 && tokenizer_id(tok, "<|video_pad|>") == 151656, "%d ids",
               tok->vocab);
        EXPECT(tokenizer_encode_special(tok, text, strlen(text), ids, ROOM) == 5 &&
                   memcmp(ids, want, sizeof want) == 0,
               "%d %d %d %d", ids[0], ids[1], ids[2], ids[3]);
        const int n = tokenizer_encode(tok, text, strlen(text), ids, ROOM);
        for (int i = 0; i < n; i++) {
            EXPECT(ids[i] < 151643, "plain text gave the special id %d", ids[i]);
        }
    }
    tokenizer_free(tok);
}
