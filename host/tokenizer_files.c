// tokenizer_files: see tokenizer_files.h. First what the forms share, then one form after the
// other, then the folder.
#include "tokenizer_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpe_vocab.h"
#include "clip_merges.h"
#include "file.h"
#include "tekken.h"
#include "text_lines.h"
#include "tokenizer_json.h"

#define BAD(...) error_at(EXIT_BAD_DATA, ERROR_NOWHERE, __VA_ARGS__)
#define MAX_FILE ((size_t)256 << 20) // bytes of one file, also unpacked

// ---- what tokenizer_config.json says ----
// A token there is a text or an object with its content; NULL: none.
static const char *token_name(const json_t *value) {
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

static const char *config_token(const json_t *config, const char *key, const char *otherwise) {
    const char *name = token_name(json_object_get(config, key));
    return name ? name : otherwise;
}

// Does this file name the token as special?
static bool names_special(const json_t *config, const char *token) {
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(config_token(config, keys[i], ""), token) == 0) {
            return true;
        }
    }
    const json_t *more = json_object_get(config, "additional_special_tokens");
    for (size_t i = 0; i < json_array_size(more); i++) {
        const char *name = token_name(json_array_get(more, i));
        if (name && strcmp(name, token) == 0) {
            return true;
        }
    }
    return false;
}

static Error add_special(Tokenizer *tok, int32_t id, const char *name) {
    AddedToken token = {.name = (char *)name, .id = id, .is_special = true};
    return tokenizer_add(tok, &token);
}

// Ends the making of *out: on an error there is none.
static Error finish(Tokenizer **out, Error error) {
    if (error.code != EXIT_OK) {
        tokenizer_free(*out);
        *out = NULL;
    } else {
        tokenizer_finish(*out);
    }
    return error;
}

// ---- vocab.txt ----
static Error bert_switches(Normalizer *norm, const json_t *config) {
    const char *class = "";
    norm->steps[norm->count++] = NORMALIZE_BERT;
    norm->clean_text = norm->chinese = norm->lowercase = true;
    Error error = json_member_text(config, "tokenizer_class", false, &class);
    if (error.code == EXIT_OK) {
        error = json_member_bool(config, "do_lower_case", false, &norm->lowercase);
    }
    norm->strip_accents = norm->lowercase;
    if (error.code == EXIT_OK) {
        error = json_member_bool(config, "strip_accents", false, &norm->strip_accents);
    }
    if (error.code == EXIT_OK) {
        error = json_member_bool(config, "tokenize_chinese_chars", false, &norm->chinese);
    }
    if (error.code == EXIT_OK && class[0] && strcmp(class, "BertTokenizer") != 0 &&
        strcmp(class, "BertTokenizerFast") != 0) {
        error = BAD("tokenizer_class '%.60s' is not supported with vocab.txt", class);
    }
    return error;
}

static Error read_words(Vocab *names, const char *text, size_t size) {
    TextLines lines = text_lines(text, size);
    const char *line;
    Error error = error_none();
    for (size_t length; error.code == EXIT_OK && text_lines_next(&lines, &line, &length);) {
        error = vocab_put(names, (int64_t)lines.number - 1, line, length, true);
    }
    return error;
}

static Error make_bert(Tokenizer *tok, Vocab *names, const json_t *config) {
    static const char *const keys[] = {"pad_token", "unk_token", "cls_token", "sep_token",
                                       "mask_token"};
    static const char *const defaults[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    Error error = bert_switches(tok->normalizer, config);
    if (error.code == EXIT_OK) {
        error = wordpiece_from_names(tok, names, config_token(config, keys[1], defaults[1]), "##",
                                     100);
    }
    tok->splitter = CUT_BERT;
    tok->cleans_up = true;
    normalizer_begin(tok->normalizer);
    for (int i = 0; i < 5 && error.code == EXIT_OK; i++) {
        const char *name = config_token(config, keys[i], defaults[i]);
        const int32_t id = vocab_find(&tok->table, name, strlen(name));
        if (id >= 0) {
            error = add_special(tok, id, name);
        } else if (i == 2 || i == 3) {
            error = BAD("%s '%.40s' is not in the vocabulary", keys[i], name);
        }
        if (i == 2) {
            tok->before[tok->before_count++] = id;
        } else if (i == 3) {
            tok->after[tok->after_count++] = id;
        }
    }
    return error;
}

Error tokenizer_from_vocab_txt(Tokenizer **out, const char *text, size_t size,
                               const json_t *config) {
    *out = NULL;
    Vocab names = vocab_new((int)text_lines_count(text, size, VOCAB_MOST));
    Error error = read_words(&names, text, size);
    if (error.code == EXIT_OK) {
        *out = tokenizer_new(TOKENIZER_WORDPIECE, names.count);
        error = make_bert(*out, &names, config);
    }
    vocab_free(&names);
    return finish(out, error);
}

// ---- vocab.json and merges.txt ----
typedef struct {
    const char *class; // tokenizer_class, also with "Fast" behind it
    Splitter splitter;
    const char *suffix, *before, *after; // names of the tokens around a text, or NULL
} MergeFamily;
static const MergeFamily families[] = {
    {"Qwen2Tokenizer", CUT_QWEN2, "", NULL, NULL},
    {"CLIPTokenizer", CUT_CLIP, "</w>", "<|startoftext|>", "<|endoftext|>"},
    {"GPT2Tokenizer", CUT_GPT2, "", NULL, NULL},
};

static Error find_family(const MergeFamily **out, const json_t *config) {
    static const char *const switches[] = {"add_prefix_space", "add_bos_token", "add_eos_token",
                                           "split_special_tokens"};
    const char *class = NULL;
    if (!config) {
        return BAD("tokenizer_config.json is missing; its tokenizer_class says what "
                   "vocab.json and merges.txt mean");
    }
    const Error error = json_member_text(config, "tokenizer_class", true, &class);
    if (error.code != EXIT_OK) {
        return error;
    }
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        if (json_is_true(json_object_get(config, switches[i]))) {
            return BAD("%s true is not supported", switches[i]);
        }
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const size_t length = strlen(families[i].class);
        if (strncmp(class, families[i].class, length) == 0 &&
            (!class[length] || strcmp(class + length, "Fast") == 0)) {
            *out = &families[i];
            return error_none();
        }
    }
    return BAD("tokenizer_class '%.60s' is not supported with vocab.json", class);
}

typedef struct {
    AddedToken *tokens;
    int count;
    int64_t most;
} AddedList;

static void put_added(AddedList *list, AddedToken token) {
    list->tokens = xrealloc(list->tokens, (size_t)list->count + 1, sizeof *list->tokens);
    list->tokens[list->count++] = token;
    list->most = token.id > list->most ? token.id : list->most;
}

// Added tokens of the configuration, else of added_tokens.json.
static Error list_added(AddedList *list, const MergeFiles *files) {
    const json_t *decoder = NULL;
    const char *key;
    json_t *value;
    Error error = json_member_object(files->config, "added_tokens_decoder", false, &decoder);
    json_object_foreach((json_t *)decoder, key, value) {
        char *end;
        const long id = strtol(key, &end, 10);
        AddedToken token = {0};
        if (error.code == EXIT_OK && (*end || !key[0] || id < 0 || id >= VOCAB_MOST)) {
            error = BAD("added_tokens_decoder: '%.40s' is no id", key);
        } else if (error.code == EXIT_OK) {
            error = added_token_from_json(&token, value, id);
        }
        if (error.code == EXIT_OK) {
            put_added(list, token);
        }
    }
    json_object_foreach(decoder ? NULL : (json_t *)files->added, key, value) {
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= VOCAB_MOST) {
            return BAD("added_tokens.json: the id of '%.40s' is no integer from 0 to %d", key,
                       VOCAB_MOST - 1);
        }
        const bool is_special =
            names_special(files->config, key) || names_special(files->special_map, key);
        put_added(list, (AddedToken){.name = (char *)key, .id = (int32_t)id,
                                     .is_special = is_special, .is_normalized = !is_special});
    }
    return error;
}

static Error read_merge_lines(MergeList *merges, const Vocab *names, const MergeFiles *files) {
    TextLines lines = text_lines(files->merges, files->merges_size);
    const char *line;
    Error error = error_none();
    for (size_t size; error.code == EXIT_OK && text_lines_next(&lines, &line, &size);) {
        const bool is_header = size >= 8 && memcmp(line, "#version", 8) == 0;
        if (size > 0 && !is_header) {
            error = merge_list_add_line(merges, names, line, size);
        }
    }
    return error;
}

// The token that a family puts around a text: the configured one, else its own.
static Error put_around(Tokenizer *tok, const MergeFiles *files, const char *key, const char *name,
                        int32_t *ids, int *count) {
    if (!name) {
        return error_none();
    }
    name = config_token(files->config, key, config_token(files->special_map, key, name));
    ids[(*count)++] = tokenizer_id(tok, name);
    return ids[*count - 1] >= 0 ? error_none() : BAD("%s '%.40s' is no special token", key, name);
}

static Error make_merges(Tokenizer *tok, const MergeFiles *files, const MergeFamily *family,
                         const Vocab *names, const AddedList *added) {
    MergeList merges = {0};
    Error error = read_merge_lines(&merges, names, files);
    if (error.code == EXIT_OK) {
        error = bpe_from_names(tok, names, &merges, family->suffix);
    }
    merge_list_free(&merges);
    Normalizer *norm = tok->normalizer;
    tok->splitter = family->splitter;
    if (family->splitter != CUT_GPT2) {
        norm->steps[norm->count++] = NORMALIZE_NFC;
    }
    if (family->splitter == CUT_CLIP) {
        norm->steps[norm->count++] = NORMALIZE_BLANKS;
        norm->steps[norm->count++] = NORMALIZE_LOWER;
    }
    normalizer_begin(norm);
    for (int i = 0; i < added->count && error.code == EXIT_OK; i++) {
        error = tokenizer_add(tok, &added->tokens[i]);
    }
    // Special tokens of the configuration that stand in the vocabulary without having been added.
    for (int id = 0; id < names->count && error.code == EXIT_OK; id++) {
        const char *name = names->pieces[id].bytes;
        const bool is_around = family->before && (strcmp(name ? name : "", family->before) == 0 ||
                                                  strcmp(name ? name : "", family->after) == 0);
        if (name && !added_by_name(&tok->added, name) &&
            (is_around || names_special(files->config, name) ||
             names_special(files->special_map, name))) {
            error = add_special(tok, id, name);
        }
    }
    if (error.code == EXIT_OK) {
        error = put_around(tok, files, "bos_token", family->before, tok->before,
                           &tok->before_count);
    }
    if (error.code == EXIT_OK) {
        error = put_around(tok, files, "eos_token", family->after, tok->after, &tok->after_count);
    }
    return error;
}

Error tokenizer_from_merges(Tokenizer **out, const MergeFiles *files) {
    *out = NULL;
    const MergeFamily *family = NULL;
    AddedList added = {.most = -1};
    Vocab names = {0};
    Error error = find_family(&family, files->config);
    if (error.code == EXIT_OK) {
        error = list_added(&added, files);
    }
    if (error.code == EXIT_OK) {
        error = names_from_json(&names, files->vocab, added.most);
    }
    if (error.code == EXIT_OK) {
        error = names_add(&names, added.tokens, added.count);
    }
    if (error.code == EXIT_OK) {
        *out = tokenizer_new(TOKENIZER_BPE, names.count);
        error = make_merges(*out, files, family, &names, &added);
    }
    vocab_free(&names);
    free(added.tokens);
    return finish(out, error);
}

// ---- a folder ----
static bool is_there(const char *dir, const char *name) {
    char *path = file_join_new(dir, name);
    const bool is = file_exists(path);
    free(path);
    return is;
}

static Error in_file(const char *name, Error error) {
    return error.code == EXIT_OK
               ? error
               : error_at(error.code, error.offset, "%s: %.180s", name, error.text);
}

static Error read_bytes(FileBytes *out, const char *dir, const char *name) {
    char *path = file_join_new(dir, name);
    const Error error = file_read_new(out, path, MAX_FILE);
    free(path);
    return in_file(name, error);
}

// NULL without an error where there is no such file.
static Error read_json(json_t **out, const char *dir, const char *name) {
    *out = NULL;
    if (!is_there(dir, name)) {
        return error_none();
    }
    char *path = file_join_new(dir, name);
    const Error error = json_read_new(out, path, MAX_FILE);
    free(path);
    return in_file(name, error);
}

static Error open_merges(Tokenizer **out, const char *dir, const char *name) {
    static const char *const parts[] = {"vocab.json", "tokenizer_config.json",
                                        "added_tokens.json", "special_tokens_map.json"};
    json_t *json[4] = {NULL};
    FileBytes merges = {0};
    Error error = read_bytes(&merges, dir, "merges.txt");
    for (int i = 0; i < 4 && error.code == EXIT_OK; i++) {
        error = read_json(&json[i], dir, i == 0 ? name : parts[i]);
    }
    if (error.code == EXIT_OK) {
        error = tokenizer_from_merges(
            out, &(MergeFiles){.vocab = json[0], .config = json[1], .added = json[2],
                               .special_map = json[3], .merges = (const char *)merges.data,
                               .merges_size = merges.size});
    }
    for (int i = 0; i < 4; i++) {
        json_decref(json[i]);
    }
    file_bytes_free(&merges);
    return error;
}

// tekken.json has its vocabulary beside a configuration, tokenizer.json inside a model. In the
// former, token 0 is NUL and also written as text.
static Error open_json(Tokenizer **out, const char *text, size_t size) {
    json_t *root;
    Error error = json_parse_nul_new(&root, text, size);
    if (error.code == EXIT_OK) {
        error = json_object_get(root, "config") ? tokenizer_from_tekken(out, root)
                                                : tokenizer_from_json(out, root);
    }
    json_decref(root);
    return error;
}

// A file that stands alone, or with one small file beside it: which form it has, its bytes say.
static Error open_file(Tokenizer **out, const char *dir, const char *name) {
    FileBytes bytes;
    Error error = read_bytes(&bytes, dir, name);
    if (error.code != EXIT_OK) {
        return error;
    }
    const char *text = (const char *)bytes.data;
    const size_t blank = bytes.size ? strspn(text, " \t\r\n") : 0;
    const char *line = text;
    size_t size = 0;
    TextLines lines = text_lines(text, bytes.size);
    text_lines_next(&lines, &line, &size);
    json_t *beside = NULL;
    if (bytes.size >= 2 && bytes.data[0] == 0x1f && bytes.data[1] == 0x8b) {
        error = tokenizer_from_clip_gzip(out, bytes.data, bytes.size);
    } else if (text[blank] == '{') {
        error = open_json(out, text, bytes.size);
    } else if (memchr(line, ' ', size)) { // no word of a vocabulary has a blank
        error = read_json(&beside, dir, "special_tokens.json");
        if (error.code == EXIT_OK) {
            error = tokenizer_from_ranks(out, text, bytes.size, beside);
        }
    } else {
        error = read_json(&beside, dir, "tokenizer_config.json");
        if (error.code == EXIT_OK) {
            error = tokenizer_from_vocab_txt(out, text, bytes.size, beside);
        }
    }
    json_decref(beside);
    file_bytes_free(&bytes);
    return in_file(name, error);
}

// The first file of the folder whose name ends so; caller frees; NULL: none.
static char *find_ending_new(const char *dir, const char *ending) {
    char **names, *found = NULL;
    int count;
    if (file_list_new(&names, &count, dir).code != EXIT_OK) {
        return NULL;
    }
    for (int i = 0; i < count && !found; i++) {
        const size_t size = strlen(names[i]), tail = strlen(ending);
        const bool has_it = size > tail && strcmp(names[i] + size - tail, ending) == 0;
        found = has_it ? xstrdup(names[i]) : NULL;
    }
    file_list_free(names, count);
    return found;
}

static Error open_folder(Tokenizer **out, const char *dir) {
    static const char *const names[] = {"tokenizer.json", "tekken.json", "vocab.json",
                                        "vocab.txt"};
    static const char *const endings[] = {".txt.gz", ".tiktoken"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (is_there(dir, names[i])) {
            return i == 2 ? open_merges(out, dir, names[i]) : open_file(out, dir, names[i]);
        }
    }
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        char *name = find_ending_new(dir, endings[i]);
        if (name) {
            const Error error = open_file(out, dir, name);
            free(name);
            return error;
        }
    }
    return error_at(EXIT_NO_INPUT, ERROR_NOWHERE,
                    "no tokenizer here; wanted tokenizer.json, tekken.json, vocab.json with "
                    "merges.txt, vocab.txt, a .txt.gz or a .tiktoken file");
}

Error tokenizer_open_new(Tokenizer **out, const char *path) {
    *out = NULL;
    if (file_is_directory(path)) {
        return open_folder(out, path);
    }
    if (!file_exists(path)) {
        return error_at(EXIT_NO_INPUT, ERROR_NOWHERE, "no such file or folder");
    }
    const char *slash = strrchr(path, '/');
    char *dir = xformat_new("%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    const Error error = open_file(out, dir, slash ? slash + 1 : path);
    free(dir);
    return error;
}
