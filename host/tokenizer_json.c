// tokenizer_json: see tokenizer_json.h. One function per part of the file; each says which members
// it knows, and an unknown one ends the reading.
#include "tokenizer_json.h"

#include <stdlib.h>
#include <string.h>

#include "bpe_vocab.h"

#define BAD(...) error_at(EXIT_BAD_DATA, ERROR_NOWHERE, __VA_ARGS__)
// Leaves the function with the error of a call that failed.
#define TRY(call)                                                                                  \
    do {                                                                                           \
        const Error try_error = (call);                                                            \
        if (try_error.code != EXIT_OK) {                                                           \
            return try_error;                                                                      \
        }                                                                                          \
    } while (0)

// ---- members ----
// Every member of object must be among `known`, words parted by blanks.
static Error only_members(const json_t *object, const char *known) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) {
        const size_t length = strlen(name);
        bool is_known = false;
        for (const char *at = known; *at && !is_known;) {
            const size_t word = strcspn(at, " ");
            is_known = word == length && memcmp(at, name, word) == 0;
            at += word + (at[word] == ' ');
        }
        if (!is_known) {
            return BAD("member '%.60s' is not supported", name);
        }
    }
    return error_none();
}

static const char *type_of(const json_t *object) {
    const json_t *type = json_object_get(object, "type");
    return json_is_string(type) ? json_string_value(type) : "";
}

static bool is_type(const json_t *object, const char *type) {
    return strcmp(type_of(object), type) == 0;
}

static Error unknown_type(const json_t *object) {
    return BAD("type '%.60s' is not supported", type_of(object));
}

static Error within(const char *part, Error error) {
    if (error.code == EXIT_OK) {
        return error;
    }
    return error_at(error.code, error.offset, "%s: %s", part, error.text);
}

// Member must be absent, null, or this boolean.
static Error must_be(const json_t *object, const char *name, bool wanted) {
    bool value = wanted;
    TRY(json_member_bool(object, name, false, &value));
    return value == wanted ? error_none()
                           : BAD("%s %s is not supported", name, value ? "true" : "false");
}

// ---- normalizer ----
static Error add_step(Normalizer *norm, NormalizeStep step) {
    if (norm->count == NORMALIZER_STEPS) {
        return BAD("more than %d steps are not supported", NORMALIZER_STEPS);
    }
    if (norm->count > 0 && (step == NORMALIZE_BERT || norm->steps[0] == NORMALIZE_BERT)) {
        return BAD("BertNormalizer beside others is not supported");
    }
    norm->steps[norm->count++] = step;
    return error_none();
}

static Error read_bert_normalizer(Normalizer *norm, const json_t *object) {
    TRY(only_members(object, "type clean_text handle_chinese_chars strip_accents lowercase"));
    norm->clean_text = norm->chinese = norm->lowercase = true;
    TRY(json_member_bool(object, "clean_text", false, &norm->clean_text));
    TRY(json_member_bool(object, "handle_chinese_chars", false, &norm->chinese));
    TRY(json_member_bool(object, "lowercase", false, &norm->lowercase));
    norm->strip_accents = norm->lowercase; // null: as lowercase
    TRY(json_member_bool(object, "strip_accents", false, &norm->strip_accents));
    return add_step(norm, NORMALIZE_BERT);
}

static Error read_normalizer(Normalizer *norm, const json_t *object, int depth);

static Error read_sequence(Normalizer *norm, const json_t *object, int depth) {
    const json_t *items = NULL;
    TRY(only_members(object, "type normalizers"));
    TRY(json_member_array(object, "normalizers", true, &items));
    if (depth > 4) {
        return BAD("sequences in sequences in sequences are not supported");
    }
    for (size_t i = 0; i < json_array_size(items); i++) {
        TRY(read_normalizer(norm, json_array_get(items, i), depth + 1));
    }
    return error_none();
}

static Error read_normalizer(Normalizer *norm, const json_t *object, int depth) {
    if (!object || json_is_null(object)) {
        return error_none();
    }
    if (is_type(object, "Sequence")) {
        return read_sequence(norm, object, depth);
    }
    if (is_type(object, "BertNormalizer")) {
        return read_bert_normalizer(norm, object);
    }
    if (is_type(object, "NFC") || is_type(object, "Lowercase")) {
        TRY(only_members(object, "type"));
        return add_step(norm, is_type(object, "NFC") ? NORMALIZE_NFC : NORMALIZE_LOWER);
    }
    if (is_type(object, "Replace")) {
        const json_t *pattern = NULL;
        const char *regex = "", *content = "";
        TRY(only_members(object, "type pattern content"));
        TRY(json_member_object(object, "pattern", true, &pattern));
        TRY(json_member_text(pattern, "Regex", true, &regex));
        TRY(json_member_text(object, "content", true, &content));
        if (strcmp(regex, "\\s+") != 0 || strcmp(content, " ") != 0) {
            return BAD("Replace of '%.40s' by '%.40s' is not supported", regex, content);
        }
        return add_step(norm, NORMALIZE_BLANKS);
    }
    return unknown_type(object);
}

// ---- pre-tokenizer ----
// What has been read of it so far; CUT_COUNT: no rule yet.
typedef struct {
    Splitter rule;
    bool is_byte_level;
} PreTokenizer;

static Error read_split(PreTokenizer *pre, const json_t *object) {
    const json_t *pattern = NULL;
    const char *regex = "", *behavior = "";
    bool is_inverted = false;
    TRY(only_members(object, "type pattern behavior invert"));
    TRY(json_member_object(object, "pattern", true, &pattern));
    TRY(json_member_text(pattern, "Regex", true, &regex));
    TRY(json_member_text(object, "behavior", true, &behavior));
    TRY(json_member_bool(object, "invert", false, &is_inverted));
    const Splitter rule = splitter_from_regex(regex);
    if (rule == CUT_COUNT) {
        return BAD("Split by the expression '%.100s' is not supported", regex);
    }
    // CLIP's rule says which pieces to keep; the others cover all text.
    const bool is_removed = strcmp(behavior, "Removed") == 0;
    if (rule == CUT_CLIP ? !is_removed || !is_inverted
                           : is_inverted || strcmp(behavior, "Isolated") != 0) {
        return BAD("Split with behavior '%.40s', invert %s is not supported for this expression",
                   behavior, is_inverted ? "true" : "false");
    }
    if (pre->rule != CUT_COUNT || pre->is_byte_level) {
        return BAD("Split after another split is not supported");
    }
    pre->rule = rule;
    return error_none();
}

static Error read_byte_level(PreTokenizer *pre, const json_t *object) {
    bool has_regex = true;
    TRY(only_members(object, "type add_prefix_space trim_offsets use_regex"));
    TRY(must_be(object, "add_prefix_space", false));
    if (!json_object_get(object, "add_prefix_space")) {
        return BAD("add_prefix_space true, the default, is not supported");
    }
    TRY(json_member_bool(object, "use_regex", false, &has_regex));
    if (pre->is_byte_level) {
        return BAD("ByteLevel twice is not supported");
    }
    // GPT-2's expression changes nothing in the pieces of CLIP's.
    if (pre->rule == CUT_COUNT && !has_regex) {
        return BAD("ByteLevel without an expression and without a Split is not supported");
    }
    if (pre->rule != CUT_COUNT && pre->rule != CUT_CLIP && has_regex) {
        return BAD("use_regex true after a Split is not supported");
    }
    pre->rule = pre->rule == CUT_COUNT ? CUT_GPT2 : pre->rule;
    pre->is_byte_level = true;
    return error_none();
}

static Error read_pre_tokenizer(PreTokenizer *pre, const json_t *object, bool is_inner) {
    if (is_type(object, "Sequence") && !is_inner) {
        const json_t *items = NULL;
        TRY(only_members(object, "type pretokenizers"));
        TRY(json_member_array(object, "pretokenizers", true, &items));
        for (size_t i = 0; i < json_array_size(items); i++) {
            TRY(read_pre_tokenizer(pre, json_array_get(items, i), true));
        }
        return error_none();
    }
    if (is_type(object, "Split")) {
        return read_split(pre, object);
    }
    if (is_type(object, "ByteLevel")) {
        return read_byte_level(pre, object);
    }
    if (is_type(object, "BertPreTokenizer") && !is_inner) {
        pre->rule = CUT_BERT;
        return only_members(object, "type");
    }
    return object && !json_is_null(object) ? unknown_type(object)
                                           : BAD("none; it is needed to cut text");
}

// ---- post-processor ----
static Error put_around(Tokenizer *tok, bool is_before, int64_t id) {
    int *const count = is_before ? &tok->before_count : &tok->after_count;
    if (id < 0 || id >= tok->vocab) {
        return BAD("id %lld is outside 0 .. %d", (long long)id, tok->vocab - 1);
    }
    if (*count == TOKENIZER_AROUND) {
        return BAD("more than %d tokens around a text are not supported", TOKENIZER_AROUND);
    }
    (is_before ? tok->before : tok->after)[(*count)++] = (int32_t)id;
    return error_none();
}

// A token and its id: ["[SEP]", 102].
static Error read_pair(Tokenizer *tok, const json_t *object, const char *name, bool is_before) {
    const json_t *pair = NULL;
    TRY(json_member_array(object, name, true, &pair));
    const json_t *id = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_integer(id)) {
        return BAD("%s wants a token and its id", name);
    }
    return put_around(tok, is_before, json_integer_value(id));
}

// The ids of the special token that an item of a template names, put before or after the text.
static Error read_template_token(Tokenizer *tok, const json_t *specials, const json_t *item,
                                 bool is_before) {
    const char *name = "";
    const json_t *entry = NULL, *ids = NULL;
    TRY(json_member_text(item, "id", true, &name));
    TRY(json_member_object(specials, name, true, &entry));
    TRY(json_member_array(entry, "ids", true, &ids));
    for (size_t k = 0; k < json_array_size(ids); k++) {
        const json_t *id = json_array_get(ids, k);
        TRY(put_around(tok, is_before, json_is_integer(id) ? json_integer_value(id) : -1));
    }
    return error_none();
}

static Error read_template(Tokenizer *tok, const json_t *object) {
    const json_t *single = NULL, *specials = NULL;
    TRY(only_members(object, "type single pair special_tokens"));
    TRY(json_member_array(object, "single", true, &single));
    TRY(json_member_object(object, "special_tokens", true, &specials));
    bool is_before = true;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const json_t *special = json_object_get(item, "SpecialToken");
        if (special) {
            TRY(read_template_token(tok, specials, special, is_before));
        } else if (json_object_get(item, "Sequence") && is_before) {
            is_before = false;
        } else {
            return BAD("item %zu of single is not supported", i);
        }
    }
    return is_before ? BAD("single has no text") : error_none();
}

static Error read_post_processor(Tokenizer *tok, const json_t *object, bool is_inner) {
    if (!object || json_is_null(object)) {
        return error_none();
    }
    if (is_type(object, "Sequence") && !is_inner) {
        const json_t *items = NULL;
        TRY(only_members(object, "type processors"));
        TRY(json_member_array(object, "processors", true, &items));
        for (size_t i = 0; i < json_array_size(items); i++) {
            TRY(read_post_processor(tok, json_array_get(items, i), true));
        }
        return error_none();
    }
    if (is_type(object, "ByteLevel")) { // offsets only
        return only_members(object, "type add_prefix_space trim_offsets use_regex");
    }
    if (tok->before_count + tok->after_count > 0) {
        return BAD("tokens are put around a text twice");
    }
    if (is_type(object, "TemplateProcessing")) {
        return read_template(tok, object);
    }
    if (is_type(object, "BertProcessing") || is_type(object, "RobertaProcessing")) {
        TRY(only_members(object, "type sep cls trim_offsets add_prefix_space"));
        TRY(read_pair(tok, object, "cls", true));
        return read_pair(tok, object, "sep", false);
    }
    return unknown_type(object);
}

// ---- decoder ----
static Error read_decoder(Tokenizer *tok, const json_t *object) {
    if (tok->kind == TOKENIZER_BPE && is_type(object, "ByteLevel")) {
        return only_members(object, "type add_prefix_space trim_offsets use_regex");
    }
    if (tok->kind == TOKENIZER_WORDPIECE && is_type(object, "WordPiece")) {
        const char *prefix = tok->wordpiece.prefix;
        tok->cleans_up = true;
        TRY(only_members(object, "type prefix cleanup"));
        TRY(json_member_text(object, "prefix", false, &prefix));
        TRY(json_member_bool(object, "cleanup", false, &tok->cleans_up));
        return strcmp(prefix, tok->wordpiece.prefix) == 0
                   ? error_none()
                   : BAD("prefix '%.40s' is not the model's", prefix);
    }
    return BAD("type '%.60s' is not supported with this model", type_of(object));
}

// ---- vocabulary ----
Error names_from_json(Vocab *names, const json_t *vocab, int64_t most) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)vocab, name, value) {
        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) >= VOCAB_MOST) {
            return BAD("token '%.40s': its id is no integer from 0 to %d", name, VOCAB_MOST - 1);
        }
        most = json_integer_value(value) > most ? json_integer_value(value) : most;
    }
    *names = vocab_new((int)most + 1);
    json_object_foreach((json_t *)vocab, name, value) {
        TRY(vocab_put(names, json_integer_value(value), name, strlen(name), true));
    }
    return error_none();
}

Error added_token_from_json(AddedToken *token, const json_t *object, int64_t id) {
    const char *content = "";
    *token = (AddedToken){.is_normalized = true};
    TRY(only_members(object, "id content single_word lstrip rstrip normalized special __type"));
    TRY(json_member_text(object, "content", true, &content));
    TRY(json_member_int(object, "id", id < 0, 0, VOCAB_MOST - 1, &id));
    TRY(json_member_bool(object, "single_word", false, &token->single_word));
    TRY(json_member_bool(object, "lstrip", false, &token->lstrip));
    TRY(json_member_bool(object, "rstrip", false, &token->rstrip));
    TRY(json_member_bool(object, "special", false, &token->is_special));
    token->is_normalized = !token->is_special;
    TRY(json_member_bool(object, "normalized", false, &token->is_normalized));
    token->name = (char *)content;
    token->id = (int32_t)id;
    return error_none();
}

Error names_add(Vocab *names, const AddedToken *tokens, int count) {
    for (int i = 0; i < count; i++) {
        const size_t size = strlen(tokens[i].name);
        const int32_t id = vocab_find(names, tokens[i].name, size);
        if (id < 0) {
            if (tokens[i].id >= names->count || names->pieces[tokens[i].id].kind != PIECE_NONE) {
                return BAD("added token '%.40s' has the id %d, which another token has",
                           tokens[i].name, tokens[i].id);
            }
            vocab_set(names, tokens[i].id, PIECE_WORD, tokens[i].name, size); // not for the model
        } else if (id != tokens[i].id) {
            return BAD("added token '%.40s' has id %d, and %d in the vocabulary", tokens[i].name,
                       tokens[i].id, id);
        }
    }
    return error_none();
}

// ---- model ----
static Error read_merge(MergeList *merges, const Vocab *names, const json_t *item) {
    const json_t *left = json_array_get(item, 0), *right = json_array_get(item, 1);
    if (json_is_string(left) && json_is_string(right) && json_array_size(item) == 2) {
        return merge_list_add(merges, names, json_string_value(left), json_string_length(left),
                              json_string_value(right), json_string_length(right));
    }
    return merge_list_add_line(merges, names, json_is_string(item) ? json_string_value(item) : "",
                               json_string_length(item));
}

static Error read_bpe(Tokenizer *tok, const json_t *model, const Vocab *names) {
    const json_t *items = NULL, *dropout = json_object_get(model, "dropout");
    const char *prefix = "", *suffix = "";
    TRY(only_members(model, "type dropout unk_token continuing_subword_prefix end_of_word_suffix "
                            "fuse_unk byte_fallback ignore_merges vocab merges"));
    TRY(json_member_text(model, "continuing_subword_prefix", false, &prefix));
    TRY(json_member_text(model, "end_of_word_suffix", false, &suffix));
    TRY(json_member_bool(model, "ignore_merges", false, &tok->is_whole_first));
    TRY(must_be(model, "byte_fallback", false));
    TRY(json_member_array(model, "merges", true, &items));
    if (json_number_value(dropout) != 0 || prefix[0] || strlen(suffix) > 16) {
        return BAD("%s is not supported", prefix[0]           ? "continuing_subword_prefix"
                                          : strlen(suffix) > 16 ? "an end_of_word_suffix so long"
                                                              : "dropout");
    }
    if (suffix[0] && tok->is_whole_first) {
        return BAD("ignore_merges with an end_of_word_suffix is not supported");
    }
    MergeList merges = {0};
    Error error = error_none();
    for (size_t i = 0; i < json_array_size(items) && error.code == EXIT_OK; i++) {
        error = read_merge(&merges, names, json_array_get(items, i));
    }
    if (error.code == EXIT_OK) {
        error = bpe_from_names(tok, names, &merges, suffix);
    }
    merge_list_free(&merges);
    return error;
}

static Error read_wordpiece(Tokenizer *tok, const json_t *model, Vocab *names) {
    const char *unknown = "", *prefix = "##";
    int64_t most = 100;
    TRY(only_members(model, "type unk_token continuing_subword_prefix max_input_chars_per_word "
                            "vocab"));
    TRY(json_member_text(model, "unk_token", true, &unknown));
    TRY(json_member_text(model, "continuing_subword_prefix", false, &prefix));
    TRY(json_member_int(model, "max_input_chars_per_word", false, 1, WORDPIECE_MOST_CHARS, &most));
    return wordpiece_from_names(tok, names, unknown, prefix, (int)most);
}

// ---- the whole ----
typedef struct {
    AddedToken *tokens;
    int count;
    int64_t most; // greatest id
} AddedList;

static Error read_added(AddedList *list, const json_t *items) {
    list->most = -1;
    list->tokens = xcalloc(json_array_size(items) + 1, sizeof *list->tokens);
    for (size_t i = 0; i < json_array_size(items); i++) {
        AddedToken *token = &list->tokens[list->count++];
        TRY(added_token_from_json(token, json_array_get(items, i), -1));
        list->most = token->id > list->most ? token->id : list->most;
    }
    return error_none();
}

// Everything that needs the model's table.
static Error read_parts(Tokenizer *tok, const json_t *root, const json_t *model,
                        Vocab *names, const AddedList *added) {
    PreTokenizer pre = {.rule = CUT_COUNT};
    TRY(within("model", tok->kind == TOKENIZER_BPE ? read_bpe(tok, model, names)
                                                   : read_wordpiece(tok, model, names)));
    TRY(within("normalizer",
               read_normalizer(tok->normalizer, json_object_get(root, "normalizer"), 0)));
    TRY(within("pre_tokenizer",
               read_pre_tokenizer(&pre, json_object_get(root, "pre_tokenizer"), false)));
    if (pre.is_byte_level != (tok->kind == TOKENIZER_BPE)) {
        return BAD("pre_tokenizer: ByteLevel and a BPE model only go together");
    }
    tok->splitter = pre.rule;
    TRY(within("post_processor",
               read_post_processor(tok, json_object_get(root, "post_processor"), false)));
    TRY(within("decoder", read_decoder(tok, json_object_get(root, "decoder"))));
    normalizer_begin(tok->normalizer);
    for (int i = 0; i < added->count; i++) {
        TRY(tokenizer_add(tok, &added->tokens[i]));
    }
    tokenizer_finish(tok);
    return error_none();
}

static Error read_root(Tokenizer **out, const json_t *root, Vocab *names, AddedList *added) {
    const json_t *model = NULL, *vocab = NULL, *items = NULL;
    if (!json_is_object(root)) {
        return BAD("wants an object, got %s", json_type_name(root));
    }
    TRY(only_members(root, "version truncation padding added_tokens normalizer pre_tokenizer "
                           "post_processor decoder model"));
    TRY(json_member_object(root, "model", true, &model));
    TRY(json_member_array(root, "added_tokens", false, &items));
    const bool is_bpe = is_type(model, "BPE") ||
                        (!json_object_get(model, "type") && json_object_get(model, "merges"));
    if (!is_bpe && !is_type(model, "WordPiece")) {
        return within("model", unknown_type(model));
    }
    TRY(within("model", json_member_object(model, "vocab", true, &vocab)));
    TRY(within("added_tokens", read_added(added, items)));
    TRY(within("model", names_from_json(names, vocab, added->most)));
    TRY(within("added_tokens", names_add(names, added->tokens, added->count)));
    *out = tokenizer_new(is_bpe ? TOKENIZER_BPE : TOKENIZER_WORDPIECE, names->count);
    return read_parts(*out, root, model, names, added);
}

Error tokenizer_from_json(Tokenizer **out, const json_t *root) {
    Vocab names = {0};
    AddedList added = {0};
    *out = NULL;
    const Error error = read_root(out, root, &names, &added);
    if (error.code != EXIT_OK) {
        tokenizer_free(*out);
        *out = NULL;
    }
    vocab_free(&names);
    free(added.tokens);
    return error;
}
