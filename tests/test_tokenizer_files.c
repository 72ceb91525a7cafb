// Files of tokenizers as folders have them: what makes one, what is refused, damaged bytes; and the
// small parts that work on any text: UTF-8, classes, cleaning.
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "host/bpe_vocab.h"
#include "host/clip_merges.h"
#include "host/file.h"
#include "host/json.h"
#include "host/tekken.h"
#include "host/text_clean.h"
#include "host/tokenizer_files.h"
#include "host/tokenizer_json.h"
#include "host/unicode.h"
#include "tests/check.h"

enum { ROOM = 1024 };

static void expect_refused(Error error, Tokenizer *tok, const char *wants) {
    EXPECT(error.code == EXIT_BAD_DATA && !tok && strstr(error.text, wants),
           "'%s', which lacks '%s'", error.text, wants);
    tokenizer_free(tok);
}

static json_t *json_of(const char *text) {
    json_t *json = text ? json_loads(text, 0, NULL) : NULL;
    CHECK(!text || json, "'%s'", text);
    return json;
}

static Error parse_json(Tokenizer **tok, const void *text, size_t size) {
    json_t *root;
    Error error = json_parse_nul_new(&root, text, size);
    *tok = NULL;
    if (error.code == EXIT_OK) {
        error = json_object_get(root, "config") ? tokenizer_from_tekken(tok, root)
                                                : tokenizer_from_json(tok, root);
    }
    json_decref(root);
    return error;
}

// ---- parts ----
TEST(tokenizer_utf8) {
    static const struct {
        const char *text, *want, *open;
    } rows[] = {
        {"plain", "plain", "plain"},
        {"\xc3\xa9\xf0\x9f\x98\x80", "\xc3\xa9\xf0\x9f\x98\x80", "\xc3\xa9\xf0\x9f\x98\x80"},
        // Unicode 15, table 3-8.
        {"a\xf1\x80\x80\xe1\x80\xc2"
         "b\x80"
         "c\x80\xbf"
         "d",
         "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
         "b\xef\xbf\xbd"
         "c\xef\xbf\xbd\xef\xbf\xbd"
         "d",
         NULL},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd", NULL},             // overlong
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", NULL}, // a surrogate
        {"12345678\xe6\xbc", "12345678\xef\xbf\xbd", "12345678"},   // cut short: may go on
        {"x\xf0\x9f\x98", "x\xef\xbf\xbd", "x"},
        {"x\xff", "x\xef\xbf\xbd", "x\xef\xbf\xbd"}, // nothing mends this one
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int is_open = 0; is_open < 2; is_open++) {
            char out[3 * 64];
            const char *want = is_open && rows[i].open ? rows[i].open : rows[i].want;
            const size_t n = utf8_repair(out, rows[i].text, strlen(rows[i].text), is_open);
            EXPECT(n == strlen(want) && memcmp(out, want, n) == 0, "row %zu, open=%d: '%.*s'", i,
                   is_open, (int)n, out);
        }
    }
    EXPECT(utf8_valid("1234567890123456\xc3\xa9x\xff", 20) == 19, "19 bytes are valid");
}

// Every code point against utf8proc is done by tools/fuzz_tokenizers.py; here the odd ones.
TEST(tokenizer_unicode) {
    EXPECT(unicode_class(' ') == CLASS_SPACE && unicode_class(0x85) == CLASS_SPACE &&
               unicode_class(0x180e) == 0 && unicode_class(0x3000) == CLASS_SPACE, "blanks");
    EXPECT(unicode_class('\n') == (CLASS_SPACE | CLASS_NEWLINE) && unicode_class(0x1c) == 0, "LF");
    EXPECT(unicode_class('_') == CLASS_WORD && unicode_class(0xbd) == CLASS_NUMBER, "others");
    EXPECT(unicode_is_punctuation('$') && !unicode_is_punctuation(0x20ac) &&
               unicode_is_punctuation(0x3001), "punctuation");
    EXPECT(!unicode_is_punctuation(0x2e43) && !unicode_is_accent(0x1df6) &&
               unicode_is_accent(0x1dc0), "newer than Unicode 8");
    EXPECT(!unicode_is_control('\t') && unicode_is_control('\v') && !unicode_is_control(0x378),
           "control");
    int32_t lower[2];
    EXPECT(unicode_lower(lower, 0x130) == 2 && lower[0] == 'i' && lower[1] == 0x307, "I with dot");
    // Marks come into order; a young one stays where it is and stops the others.
    const int32_t marks[] = {'a', 0x301, 0x323}, young[] = {'a', 0x301, 0x1df6, 0x323};
    int32_t out[16];
    size_t n = unicode_decompose(out, marks, 3);
    EXPECT(n == 3 && out[1] == 0x323 && out[2] == 0x301, "order");
    n = unicode_compose(out, n);
    EXPECT(n == 2 && out[0] == 0x1ea1 && out[1] == 0x301, "composed: %zu %x", n, (unsigned)out[0]);
    n = unicode_compose(out, unicode_decompose(out, young, 4));
    EXPECT(n == 3 && out[0] == 0xe1 && out[1] == 0x1df6 && out[2] == 0x323, "stopped: %zu", n);
}

TEST(tokenizer_text_clean) {
    json_t *rows = NULL;
    const char *path = check_fixture("text_clean.json");
    EXPECT(path && json_read_new(&rows, path, 1 << 20).code == EXIT_OK, "no vectors");
    EXPECT(!rows || json_array_size(rows) == 20, "%zu vectors", json_array_size(rows));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const char *text = json_string_value(json_array_get(row, 0));
        const char *want = json_string_value(json_array_get(row, 1));
        size_t size;
        char *got = text_clean_new(text, strlen(text), &size);
        EXPECT(size == strlen(got) && strcmp(got, want) == 0, "'%s' gives '%s', want '%s'", text,
               got, want);
        free(got);
    }
    json_decref(rows);
}

// ---- vocab.txt ----
#define WORDS "[PAD]\n[UNK]\n[CLS]\r\n[SEP]\n[MASK]\nchest\n##s\nx\n-"

static Error open_words(Tokenizer **tok, const char *text, const char *config) {
    json_t *json = json_of(config);
    const Error error = tokenizer_from_vocab_txt(tok, text, strlen(text), json);
    json_decref(json);
    return error;
}

TEST(tokenizer_vocab_txt) {
    Tokenizer *tok, *cased;
    EXPECT(open_words(&tok, WORDS, NULL).code == EXIT_OK, "words");
    const char text[] = "Chests [SEP] X-ray";
    const int32_t plain[] = {5, 6, 1, 1, 1, 7, 8, 1}, special[] = {5, 6, 3, 7, 8, 1};
    int32_t ids[ROOM];
    EXPECT(tokenizer_encode(tok, text, strlen(text), ids, ROOM) == 8 &&
               memcmp(ids, plain, sizeof plain) == 0, "plain");
    EXPECT(tokenizer_encode_special(tok, text, strlen(text), ids, ROOM) == 6 &&
               memcmp(ids, special, sizeof special) == 0, "special");
    const uint64_t hash = tok->hash;
    EXPECT(tokenizer_encode(tok, "chest &#120;", 12, ids, ROOM) == 5, "not cleaned");
    tokenizer_clean_texts(tok);
    EXPECT(tok->hash != hash && tokenizer_encode(tok, "chest &#120;", 12, ids, ROOM) == 2 &&
               ids[1] == 7, "cleaned");
    EXPECT(tok->before_count == 1 && tok->before[0] == 2 && tok->after[0] == 3, "around");
    EXPECT(tokenizer_id(tok, "[MASK]") == 4 && tokenizer_id(tok, "chest") == -1, "names");
    // Words of up to 100 characters are tried, longer ones are unknown.
    char word[101 * 2 + 1] = "x";
    EXPECT(open_words(&cased, "[UNK]\n[CLS]\n[SEP]\nx\n##x\n##y\n\xc3\xa9\n##\xc3\xa9",
                      "{\"do_lower_case\": false, \"tokenizer_class\": \"BertTokenizer\"}")
                   .code == EXIT_OK, "cased");
    EXPECT(tokenizer_encode(cased, "xX", 2, ids, ROOM) == 1 && ids[0] == 0, "cased");
    for (int i = 0; i < 101; i++) {
        memcpy(word + 2 * i, "\xc3\xa9", 3);
    }
    EXPECT(tokenizer_encode(cased, word, 200, ids, ROOM) == 100 && ids[0] == 6 && ids[99] == 7,
           "a word of 100");
    EXPECT(tokenizer_encode(cased, word, 202, ids, ROOM) == 1 && ids[0] == 0, "a word of 101");
    EXPECT(tok->hash != cased->hash, "hash");
    tokenizer_free(tok);
    tokenizer_free(cased);
}

TEST(tokenizer_vocab_txt_refuses) {
    static const char *const rows[][3] = {
        {"", NULL, "'[UNK]' is not in the vocabulary"},
        {"[UNK]\n[CLS]\na", NULL, "sep_token '[SEP]' is not in the vocabulary"},
        {WORDS "\nx", NULL, "token 9 is there twice"},
        {WORDS "\n\ny", NULL, "token 9 is empty"},
        {WORDS "\n\xff", NULL, "token 9 is not UTF-8"},
        {WORDS, "{\"unk_token\": \"<unk>\"}", "unknown token '<unk>'"},
        {WORDS, "{\"tokenizer_class\": \"RobertaTokenizer\"}", "'RobertaTokenizer' is not"},
        {WORDS, "{\"do_lower_case\": 1}", "do_lower_case"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Tokenizer *tok;
        const Error error = open_words(&tok, rows[i][0], rows[i][1]);
        expect_refused(error, tok, rows[i][2]);
    }
}

// ---- vocab.json and merges.txt ----
// {"symbol of byte 0": 0, ..., more} in the alphabet of GPT-2, caller frees.
static char *bytes_json_new(const char *suffix, const char *more) {
    char *text = xstrdup("{");
    for (int b = 0; b < 256 * (*suffix ? 2 : 1); b++) {
        char symbol[4];
        const int n = byte_symbol(symbol, (uint8_t)b);
        char *const name = xformat_new("%.*s%s", n, symbol, b < 256 ? "" : suffix);
        char *const quoted = json_quote_new(name);
        char *const longer = xformat_new("%s%s\"%.*s\": %d", text, b ? ", " : "",
                                         (int)strlen(quoted) - 2, quoted + 1, b);
        free(name);
        free(quoted);
        free(text);
        text = longer;
    }
    char *const whole = xformat_new("%s%s}", text, more);
    free(text);
    return whole;
}

typedef struct {
    const char *suffix, *more, *merges, *config, *added, *map, *wants;
} MergeRow;

static Error open_row(Tokenizer **tok, const MergeRow *row) {
    char *text = bytes_json_new(row->suffix ? row->suffix : "", row->more ? row->more : "");
    json_t *vocab = json_of(text), *config = json_of(row->config), *added = json_of(row->added),
           *map = json_of(row->map);
    const char *merges = row->merges ? row->merges : "";
    const Error error = tokenizer_from_merges(
        tok, &(MergeFiles){vocab, config, added, map, merges, strlen(merges)});
    json_decref(vocab);
    json_decref(config);
    json_decref(added);
    json_decref(map);
    free(text);
    return error;
}

#define QWEN "{\"tokenizer_class\": \"Qwen2Tokenizer\"}"

TEST(tokenizer_merges_folder) {
    const MergeRow row = {.more = ", \"ab\": 256, \"abab\": 257",
                          .merges = "#version: 0.2\na b\nab ab\n\n", .config = QWEN,
                          .added = "{\"<|end|>\": 300, \"<tool>\": 301}",
                          .map = "{\"eos_token\": {\"content\": \"<|end|>\"}}"};
    Tokenizer *tok;
    const Error error = open_row(&tok, &row);
    EXPECT(error.code == EXIT_OK, "%s", error.text);
    const char text[] = "ababab<|end|><tool>";
    int32_t ids[ROOM];
    const int32_t want[] = {257, 256, 300, 301};
    EXPECT(tok && tok->vocab == 302 && tokenizer_id(tok, "<|end|>") == 300 &&
               tokenizer_id(tok, "<tool>") == -1, "added tokens");
    EXPECT(tok && tokenizer_encode_special(tok, text, strlen(text), ids, ROOM) == 4 &&
               memcmp(ids, want, sizeof want) == 0, "%d %d %d %d", ids[0], ids[1], ids[2], ids[3]);
    EXPECT(tok && tokenizer_encode(tok, text, strlen(text), ids, ROOM) == 10 && ids[9] == 301 &&
               ids[2] == '<', "plain: a tool call is no special token here");
    // Ids that nothing has are nothing.
    char *back = tokenizer_decode_new(tok, (int32_t[]){257, 270, 300}, 3, DECODE_SPECIAL, NULL);
    EXPECT(strcmp(back, "abab<|end|>") == 0, "'%s'", back);
    free(back);
    tokenizer_free(tok);
}

TEST(tokenizer_merges_folder_refuses) {
    static const MergeRow rows[] = {
        {.wants = "tokenizer_config.json is missing"},
        {.config = "{}", .wants = "'tokenizer_class' is missing"},
        {.config = "{\"tokenizer_class\": \"LlamaTokenizer\"}", .wants = "'LlamaTokenizer'"},
        {.config = "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"add_prefix_space\": true}",
         .wants = "add_prefix_space true"},
        {.config = QWEN, .merges = "a b\n", .wants = "the result is no token"},
        {.config = QWEN, .merges = "ab\n", .wants = "merge 1 is not two tokens"},
        {.config = QWEN, .more = ", \"ab\": 256", .merges = "a b\na b\n", .wants = "there twice"},
        {.config = QWEN, .more = ", \"ab\": 7", .wants = "token 7 has an id that another"},
        {.config = QWEN, .added = "{\"<x>\": -1}", .wants = "the id of '<x>'"},
        {.config = QWEN, .added = "{\"<x>\": 5}", .wants = "id 5, which another token has"},
        {.config = "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"added_tokens_decoder\": "
                   "{\"x\": {\"content\": \"<x>\"}}}", .wants = "'x' is no id"},
        {.config = "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"added_tokens_decoder\": "
                   "{\"300\": {}}}", .wants = "member 'content' is missing"},
        {.config = "{\"tokenizer_class\": \"CLIPTokenizer\"}",
         .wants = "no token for byte 0x00 at the end of a word"},
        {.config = "{\"tokenizer_class\": \"CLIPTokenizer\"}", .suffix = "</w>",
         .wants = "bos_token '<|startoftext|>' is no special token"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (CASE("%s", rows[i].wants)) {
            Tokenizer *tok;
            const Error error = open_row(&tok, &rows[i]);
            expect_refused(error, tok, rows[i].wants);
        }
    }
}

// ---- CLIP's list, and ranks ----
TEST(tokenizer_clip_list) {
    static const char list[] = "header\na b</w>\nc a\n";
    Tokenizer *tok;
    const Error error = tokenizer_from_clip_merges(&tok, list, strlen(list));
    EXPECT(error.code == EXIT_OK && tok->vocab == 516, "%s", error.text);
    int32_t ids[ROOM];
    EXPECT(tokenizer_encode(tok, "Cab  AB", 7, ids, ROOM) == 3 && ids[0] == 'c' - 33 &&
               ids[1] == 512 && ids[2] == 512, "%d %d %d", ids[0], ids[1], ids[2]);
    EXPECT(tokenizer_encode(tok, "cac", 3, ids, ROOM) == 2 && ids[0] == 513, "%d", ids[0]);
    const int32_t whole[] = {514, 66, 512, 512, 515};
    char *back = tokenizer_decode_new(tok, whole, 5, DECODE_TEXT, NULL);
    EXPECT(strcmp(back, "cab ab") == 0, "'%s'", back);
    free(back);
    tokenizer_free(tok);
    static const char *const bad[][2] = {{"header\nab\n", "merge 1 is not two tokens"},
                                         {"header\na zz\n", "the right one is no token"},
                                         {"header\na b\na b\n", "token 513 is there twice"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const Error refused = tokenizer_from_clip_merges(&tok, bad[i][0], strlen(bad[i][0]));
        expect_refused(refused, tok, bad[i][1]);
    }
    const Error refused = tokenizer_from_clip_gzip(&tok, "\x1f\x8b garbage", 10);
    expect_refused(refused, tok, "not a whole gzip file");
}

// Lines of all bytes, rank = byte, and then more; caller frees.
static char *ranks_new(const char *more) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = xstrdup("");
    for (int b = 0; b < 256; b++) {
        char *const longer = xformat_new("%s%c%c== %d\n", text, digits[b >> 2],
                                         digits[(b & 3) << 4], b);
        free(text);
        text = longer;
    }
    char *const whole = xformat_new("%s%s", text, more);
    free(text);
    return whole;
}

// tekken.json with the ranks as its vocabulary; caller frees.
static char *tekken_new(const char *config, const char *more, const char *specials) {
    char *ranks = ranks_new(more), *text = xstrdup(""), *line = ranks;
    for (char *end; (end = strchr(line, '\n')); line = end + 1) {
        char *const longer = xformat_new(
            "%s%s{\"token_str\": \"\\u0000\", \"token_bytes\": \"%.*s\", \"rank\": %s", text,
            *text ? "}, " : "", (int)strcspn(line, " "), line, line + strcspn(line, " ") + 1);
        free(text);
        text = longer;
        text[strlen(text) - strlen(end)] = '\0';
    }
    char *const whole = xformat_new("{\"config\": %s, \"vocab\": [%s}]%s}", config, text, specials);
    free(ranks);
    free(text);
    return whole;
}

TEST(tokenizer_tekken_json) {
#define TEKKEN_CONFIG(size)                                                                        \
    "{\"pattern\": "                                                                               \
    "\"[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*"              \
    "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+|"                                                      \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+"                \
    "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|"   \
    "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\", \"default_num_special_tokens\": 40, "           \
    "\"default_vocab_size\": " size "}"
    static const struct {
        const char *config, *more, *specials, *wants;
    } rows[] = {
        {TEKKEN_CONFIG("297"), "YWI= 256\nYWJj 257\n", "", NULL}, // abc is beyond the size
        {TEKKEN_CONFIG("297"), "YWI= 256\n",
         ", \"special_tokens\": [{\"rank\": 7, \"token_str\": \"[IMG]\"}]", NULL},
        {TEKKEN_CONFIG("297"), "", "", "vocab has 256 tokens, config wants 257"},
        {TEKKEN_CONFIG("39"), "", "", "39 is outside"},
        {"{\"pattern\": \"a+\", \"default_num_special_tokens\": 1, \"default_vocab_size\": 257}",
         "", "", "config.pattern 'a+' is not supported"},
        {TEKKEN_CONFIG("296"), "", ", \"special_tokens\": [{\"rank\": 40, \"token_str\": \"x\"}]",
         "'x': its id is no integer from 0 to 39"},
        {TEKKEN_CONFIG("296"), "",
         ", \"special_tokens\": [{\"rank\": 1, \"token_str\": \"x\"}, {\"rank\": 2, "
         "\"token_str\": \"x\"}]", "special token 'x' is there twice"},
        {TEKKEN_CONFIG("297"), "YWI= 300\n", "", "a token's id 340 is outside"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Tokenizer *tok;
        char *text = tekken_new(rows[i].config, rows[i].more, rows[i].specials);
        const Error error = parse_json(&tok, text, strlen(text));
        if (rows[i].wants) {
            expect_refused(error, tok, rows[i].wants);
        } else {
            int32_t ids[ROOM];
            const int32_t want[] = {296, 40 + 'c', rows[i].specials[0] ? 7 : 10};
            EXPECT(error.code == EXIT_OK && tok->vocab == 297, "%s", error.text);
            EXPECT(tok && tokenizer_encode_special(tok, "abc[IMG]", 8, ids, ROOM) == 3 &&
                       memcmp(ids, want, sizeof want) == 0, "%d %d %d", ids[0], ids[1], ids[2]);
            tokenizer_free(tok);
        }
        free(text);
    }
}

TEST(tokenizer_ranks) {
    static const struct {
        const char *more, *specials, *wants;
    } rows[] = {
        {"YWI= 256\nYWJj 257", "{\"num_special\": 4, \"names\": {\"<s>\": 1}}", NULL}, // ab, abc
        {"", "{\"names\": {}}", "member 'num_special' is missing"},
        {"", "{\"num_special\": 4}", "no object of names"},
        {"", "{\"num_special\": 4, \"a\": {}, \"b\": {}}", "two lists of names"},
        {"", "{\"num_special\": 4, \"a\": {\"<s>\": 4}}", "'<s>': its id is no integer"},
        {"", "{\"num_special\": 4, \"a\": {\"<s>\": 1, \"<t>\": 1}}", "'<t>': id 1 is there twice"},
        {"", "{\"num_special\": 4, \"a\": {\"<SPECIAL_2>\": 1}}", "'<SPECIAL_2>' is there twice"},
        {"YWI=\n", "{\"num_special\": 4, \"a\": {}}", "line 257: not a base64 text and a rank"},
        {"YWI= x\n", "{\"num_special\": 4, \"a\": {}}", "line 257: not a base64 text and a rank"},
        {"YW=I 256\n", "{\"num_special\": 4, \"a\": {}}", "line 257: token 260 is not base64"},
        {"YWI= 300\n", "{\"num_special\": 4, \"a\": {}}", "line 257: a token's id 304 is outside"},
        {"YWI= 7\n", "{\"num_special\": 4, \"a\": {}}", "token 11 has an id that another"},
        {"YQ== 256\n", "{\"num_special\": 4, \"a\": {}}", "token 260 is there twice"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Tokenizer *tok;
        char *ranks = ranks_new(rows[i].more);
        json_t *specials = json_of(rows[i].specials);
        const Error error = tokenizer_from_ranks(&tok, ranks, strlen(ranks), specials);
        if (rows[i].wants) {
            expect_refused(error, tok, rows[i].wants);
        } else {
            int32_t ids[ROOM];
            const int32_t want[] = {261, 4 + ' ', 260, 1, 4 + 'x'};
            EXPECT(error.code == EXIT_OK && tokenizer_id(tok, "<SPECIAL_3>") == 3, "%s",
                   error.text);
            EXPECT(tokenizer_encode_special(tok, "abc ab<s>x", 10, ids, ROOM) == 5 &&
                       memcmp(ids, want, sizeof want) == 0, "%d %d %d", ids[0], ids[1], ids[2]);
            tokenizer_free(tok);
        }
        json_decref(specials);
        free(ranks);
    }
    Tokenizer *tok;
    const Error error = tokenizer_from_ranks(&tok, "", 0, NULL);
    expect_refused(error, tok, "num_special");
}

// ---- folders ----
static void write_file(const char *dir, const char *name, const char *text) {
    char *path = file_join_new(dir, name);
    EXPECT(file_replace(path, text, strlen(text)).code == EXIT_OK, "cannot write '%s'", path);
    free(path);
}

TEST(tokenizer_open) {
    const char *dir = check_tmpdir();
    Tokenizer *tok, *same;
    Error error = tokenizer_open_new(&tok, dir);
    EXPECT(error.code == EXIT_NO_INPUT && !tok, "an empty folder: %s", error.text);
    write_file(dir, "words", WORDS);
    char *path = file_join_new(dir, "words");
    EXPECT(tokenizer_open_new(&tok, path).code == EXIT_OK && tok->kind == TOKENIZER_WORDPIECE,
           "a file by its content");
    write_file(dir, "vocab.txt", WORDS);
    EXPECT(tokenizer_open_new(&same, dir).code == EXIT_OK && same->hash == tok->hash, "a folder");
    tokenizer_free(tok);
    tokenizer_free(same);
    write_file(dir, "tokenizer.json", "{\"model\": 1}");
    error = tokenizer_open_new(&tok, dir);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "tokenizer.json: member 'model'"),
           "tokenizer.json comes first: %s", error.text);
    write_file(dir, "tokenizer.json", "{");
    error = tokenizer_open_new(&tok, dir);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "tokenizer.json: line 1"), "%s",
           error.text);
    write_file(dir, "words", "");
    error = tokenizer_open_new(&tok, path);
    EXPECT(error.code == EXIT_BAD_DATA, "an empty file: %s", error.text);
    free(path);
    path = file_join_new(dir, "absent");
    EXPECT(tokenizer_open_new(&tok, path).code == EXIT_NO_INPUT, "an absent file");
    free(path);
}

// ---- damage ----
typedef Error parse_fn(Tokenizer **tok, const void *text, size_t size);

static Error parse_words(Tokenizer **tok, const void *text, size_t size) {
    return tokenizer_from_vocab_txt(tok, text, size, NULL);
}

static Error parse_list(Tokenizer **tok, const void *text, size_t size) {
    return tokenizer_from_clip_merges(tok, text, size);
}

static Error parse_ranks(Tokenizer **tok, const void *text, size_t size) {
    json_t *specials = json_of("{\"num_special\": 2, \"a\": {\"<s>\": 1}}");
    const Error error = tokenizer_from_ranks(tok, text, size, specials);
    json_decref(specials);
    return error;
}

// Bytes changed, put in, taken out; then what was read, if anything, must work.
static void damage(parse_fn *parse, const char *text, int rounds, uint32_t stream) {
    Rng rng = check_rng(stream);
    const size_t whole = strlen(text);
    for (int round = 0; round < rounds; round++) {
        size_t size = rng_below(&rng, 8) ? whole : rng_below(&rng, (uint32_t)whole + 1);
        char *bytes = xmalloc(size + 1, 1);
        memcpy(bytes, text, size);
        for (uint32_t k = rng_below(&rng, 4); k > 0 && size > 0; k--) {
            const uint32_t at = rng_below(&rng, (uint32_t)size);
            bytes[at] = rng_below(&rng, 2) ? text[rng_below(&rng, (uint32_t)whole)]
                                           : (char)rng_below(&rng, 256);
        }
        bytes = xrealloc(bytes, size ? size : 1, 1); // so that a sanitizer sees one byte too far
        Tokenizer *tok;
        const Error error = parse(&tok, bytes, size);
        EXPECT((error.code == EXIT_OK) == (tok != NULL), "round %d", round);
        EXPECT(error.code == EXIT_OK || (error.code == EXIT_BAD_DATA && error.text[0]), "round %d",
               round);
        if (tok) {
            int32_t ids[ROOM];
            const int n = tokenizer_encode_special(tok, bytes, size < 200 ? size : 200, ids, ROOM);
            free(tokenizer_decode_new(tok, ids, n < ROOM ? n : ROOM, DECODE_SPECIAL, NULL));
            tokenizer_free(tok);
        }
        free(bytes);
    }
}

TEST(tokenizer_damaged) {
    static const char list[] = "header\na b</w>\nc a\nca b</w>\nt h\nth e</w>\n";
    if (CASE("vocab.txt")) {
        damage(parse_words, WORDS, 2000, 1);
    }
    if (CASE("merges")) {
        damage(parse_list, list, 1000, 2);
    }
    if (CASE("ranks")) {
        char *ranks = ranks_new("YWI= 256\nYWJj 257\n");
        damage(parse_ranks, ranks, 1000, 3);
        free(ranks);
    }
    json_t *sets = NULL;
    const char *path = check_fixture("tokenizers.json");
    EXPECT(path && json_read_new(&sets, path, 1 << 20).code == EXIT_OK, "no vectors");
    for (size_t s = 0; s < json_array_size(sets); s++) {
        const json_t *set = json_array_get(sets, s);
        if (CASE("%s", json_string_value(json_object_get(set, "name")))) {
            char *text = json_dumps(json_object_get(set, "tokenizer"), JSON_COMPACT);
            damage(parse_json, text, 300, 4 + (uint32_t)s);
            free(text);
        }
    }
    json_decref(sets);
}
