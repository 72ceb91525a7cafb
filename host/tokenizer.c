// tokenizer: what all kinds share, the way of a text through the parts, and the rule of the kind
// `tiny`; see tokenizer.h. The parts of the others: added, normalizer, splitter, wordpiece, bpe.
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "text_clean.h"
#include "unicode.h"

// ---- making and freeing ----
Tokenizer *tokenizer_new(TokenizerKind kind, int vocab) {
    Tokenizer *tok = xcalloc(1, sizeof *tok);
    tok->kind = kind;
    tok->vocab = vocab;
    tok->table = vocab_new(vocab);
    tok->normalizer = xcalloc(1, sizeof *tok->normalizer);
    tok->bpe = xcalloc(1, sizeof *tok->bpe);
    tok->scratch = xcalloc(1, sizeof *tok->scratch);
    return tok;
}

void tokenizer_free(Tokenizer *tok) {
    if (!tok) {
        return;
    }
    vocab_free(&tok->table);
    added_free(&tok->added);
    normalizer_free(tok->normalizer);
    bpe_free(tok->bpe);
    piece_cache_free(&tok->scratch->cache);
    free(tok->scratch->text);
    free(tok->scratch->ids);
    free(tok->scratch);
    free(tok->normalizer);
    free(tok->bpe);
    free(tok);
}

Error wordpiece_from_names(Tokenizer *tok, Vocab *names, const char *unknown, const char *prefix,
                           int max_chars) {
    WordPiece *model = &tok->wordpiece;
    vocab_free(&tok->table);
    tok->table = *names;
    *names = (Vocab){0};
    model->max_chars = max_chars;
    model->unknown = vocab_find(&tok->table, unknown, strlen(unknown));
    if (model->unknown < 0 || strlen(prefix) > WORDPIECE_MOST_PREFIX) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "%s '%.40s' %s",
                        model->unknown < 0 ? "unknown token" : "prefix",
                        model->unknown < 0 ? unknown : prefix,
                        model->unknown < 0 ? "is not in the vocabulary" : "is too long");
    }
    strcpy(model->prefix, prefix);
    model->longest = (int)strlen(prefix) + 1;
    for (int id = 0; id < tok->vocab; id++) {
        const int size = tok->table.pieces[id].size;
        model->longest = size > model->longest ? size : model->longest;
    }
    return error_none();
}

Error tokenizer_add(Tokenizer *tok, const AddedToken *token) {
    CHECK(token->id >= 0 && token->id < tok->vocab, "id %d of %d", token->id, tok->vocab);
    Piece *piece = &tok->table.pieces[token->id];
    CHECK(piece->kind != PIECE_NONE, "id %d has no piece", token->id);
    const size_t size = strlen(token->name);
    if (size == 0 || added_by_name(&tok->added, token->name)) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "added token '%.40s' %s", token->name,
                        size ? "is there twice" : "is empty");
    }
    if (piece->kind == PIECE_SPECIAL) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "added token '%.40s': id %d is taken",
                        token->name, token->id);
    }
    piece->kind = token->is_special ? PIECE_SPECIAL : piece->kind;
    AddedToken own = *token;
    own.content = token->name;
    own.size = size;
    if (token->is_normalized) {
        own.content = (char *)normalizer_run(tok->normalizer, token->name, size, &own.size);
        if (own.size == 0) { // it can match nowhere
            return error_none();
        }
    }
    added_put(&tok->added, &own);
    return error_none();
}

static uint64_t hash_of(const Tokenizer *tok) {
    uint64_t hash = added_hash(&tok->added, vocab_hash(&tok->table, (uint64_t)tok->kind + 1));
    if (tok->kind == TOKENIZER_TINY) {
        return hash;
    }
    const Normalizer *norm = tok->normalizer;
    int32_t facts[16 + NORMALIZER_STEPS] = {
        tok->before_count,      tok->after_count,   (int32_t)tok->splitter,
        tok->is_whole_first,    tok->has_word_ends, tok->wordpiece.max_chars,
        tok->wordpiece.unknown, norm->clean_text,   norm->chinese,
        norm->strip_accents,    norm->lowercase,    norm->count,
        tok->cleans_text};
    for (int i = 0; i < norm->count; i++) {
        facts[16 + i] = (int32_t)norm->steps[i];
    }
    hash = xxh64(facts, sizeof facts, hash);
    hash = xxh64(tok->wordpiece.prefix, strlen(tok->wordpiece.prefix), hash);
    hash = xxh64(tok->before, sizeof tok->before, hash);
    hash = xxh64(tok->after, sizeof tok->after, hash);
    hash = xxh64(tok->bpe->byte, sizeof tok->bpe->byte, hash);
    return xxh64(tok->bpe->merges, (size_t)tok->bpe->slot_count * sizeof(Merge), hash);
}

void tokenizer_finish(Tokenizer *tok) {
    tok->hash = hash_of(tok);
}

void tokenizer_clean_texts(Tokenizer *tok) {
    CHECK(tok->kind != TOKENIZER_TINY, "tiny takes texts as they are");
    tok->cleans_text = true;
    tok->hash = hash_of(tok);
}

int32_t tokenizer_id(const Tokenizer *tok, const char *special) {
    const AddedToken *token = added_by_name(&tok->added, special);
    return token && token->is_special ? token->id : -1;
}

// ---- the ids so far ----
typedef struct {
    int32_t *ids;
    int count, max;
} Sink;

static void put(Sink *sink, int32_t id) {
    if (sink->count < sink->max) {
        sink->ids[sink->count] = id;
    }
    CHECK(sink->count < INT32_MAX, "text of more than %d tokens", INT32_MAX);
    sink->count++;
}

// ---- tiny ----
static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

Tokenizer *tokenizer_tiny_new(const char *const *specials, int n, const char *const *words, int m) {
    CHECK(n >= 0 && m >= 0, "n=%d m=%d", n, m);
    Tokenizer *tok = tokenizer_new(TOKENIZER_TINY, n + m + 256);
    for (int i = 0; i < n + m; i++) {
        const char *name = i < n ? specials[i] : words[i - n];
        for (const char *c = name; *c && i >= n; c++) {
            CHECK(!is_blank(*c), "word '%s' holds a blank", name);
        }
        vocab_set(&tok->table, i, PIECE_WORD, name, strlen(name));
        CHECK(*name && vocab_index(&tok->table, i), "token '%s' is empty or there twice", name);
        if (i < n) {
            const AddedToken special = {.name = (char *)name, .id = i, .is_special = true};
            CHECK(tokenizer_add(tok, &special).code == EXIT_OK, "token '%s'", name);
        }
    }
    tok->first_byte = n + m;
    for (int b = 0; b < 256; b++) {
        const char byte = (char)b;
        vocab_set(&tok->table, tok->first_byte + b, PIECE_BYTE, &byte, 1);
    }
    const int32_t cls = tokenizer_id(tok, "[CLS]"), sep = tokenizer_id(tok, "[SEP]");
    tok->before[0] = cls;
    tok->before_count = cls >= 0;
    tok->after[0] = sep;
    tok->after_count = sep >= 0;
    tokenizer_finish(tok);
    return tok;
}

static void put_bytes(const Tokenizer *tok, Sink *sink, const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        put(sink, tok->first_byte + (uint8_t)text[i]);
    }
}

static void tiny_encode(const Tokenizer *tok, const char *text, size_t size, Sink *sink) {
    bool is_after_word = false;      // the last run that was not blank is a listed word
    size_t blanks = 0, blank_at = 0; // blanks read since then and not yet written
    for (size_t at = 0; at < size;) {
        size_t end = at;
        while (end < size && is_blank(text[end]) == is_blank(text[at])) {
            end++;
        }
        if (is_blank(text[at])) {
            blank_at = at;
            blanks = end - at;
            at = end;
            continue;
        }
        int32_t id = vocab_find(&tok->table, text + at, end - at);
        if (id >= 0 && tok->table.pieces[id].kind != PIECE_WORD) {
            id = -1; // text that spells a special token is only text
        }
        const bool is_implied = is_after_word && id >= 0 && blanks == 1 && text[blank_at] == ' ';
        if (!is_implied) {
            put_bytes(tok, sink, text + blank_at, blanks);
        }
        blanks = 0;
        if (id >= 0) {
            put(sink, id);
        } else {
            put_bytes(tok, sink, text + at, end - at);
        }
        is_after_word = id >= 0;
        at = end;
    }
    put_bytes(tok, sink, text + blank_at, blanks);
}

// ---- encoding ----
static void reserve(TokenizerScratch *scratch, size_t text, size_t ids) {
    if (scratch->text_room < text) {
        scratch->text_room = 2 * text;
        scratch->text = xrealloc(scratch->text, scratch->text_room, 1);
    }
    if (scratch->ids_room < ids) {
        scratch->ids_room = 2 * ids;
        scratch->ids = xrealloc(scratch->ids, scratch->ids_room, sizeof(int32_t));
    }
}

static int model_encode(const Tokenizer *tok, const char *piece, size_t size, int32_t *out) {
    if (tok->kind == TOKENIZER_WORDPIECE) {
        return wordpiece_encode(&tok->wordpiece, &tok->table, piece, size, out);
    }
    if (tok->is_whole_first) {
        out[0] = vocab_find(&tok->table, piece, size);
        if (out[0] >= 0) {
            return 1;
        }
    }
    return bpe_encode(tok->bpe, piece, size, out);
}

static void encode_piece(const Tokenizer *tok, Sink *sink, const char *piece, size_t size) {
    TokenizerScratch *const scratch = tok->scratch;
    const bool is_short = size <= PIECE_CACHE_LONGEST;
    int count = 0;
    const int32_t *ids = is_short ? piece_cache_find(&scratch->cache, piece, size, &count) : NULL;
    if (!ids) {
        reserve(scratch, 0, size);
        ids = scratch->ids;
        count = model_encode(tok, piece, size, scratch->ids);
        if (is_short) {
            piece_cache_add(&scratch->cache, piece, size, ids, count);
        }
    }
    for (int i = 0; i < count; i++) {
        put(sink, ids[i]);
    }
}

// Text between two added tokens of the normalised text.
static void encode_stretch(const Tokenizer *tok, Sink *sink, const char *text, size_t size) {
    if (tok->kind == TOKENIZER_TINY) {
        tiny_encode(tok, text, size, sink);
        return;
    }
    for (size_t begin = 0, end; splitter_next(tok->splitter, text, size, &begin, &end);
         begin = end) {
        encode_piece(tok, sink, text + begin, end - begin);
    }
}

// Text between two added tokens: of the raw text, and then, normalised, once more.
static void encode_between(const Tokenizer *tok, Sink *sink, const char *text, size_t size,
                           bool in_normalized, bool with_special) {
    for (size_t at = 0; at < size;) {
        const AddedMatch match =
            added_find(&tok->added, text, size, at, in_normalized, with_special);
        if (match.begin > at && in_normalized) {
            encode_stretch(tok, sink, text + at, match.begin - at);
        } else if (match.begin > at) {
            size_t part;
            const char *const normal =
                normalizer_run(tok->normalizer, text + at, match.begin - at, &part);
            encode_between(tok, sink, normal, part, true, with_special);
        }
        if (match.token) {
            put(sink, match.token->id);
        }
        at = match.end;
    }
}

static int encode(const Tokenizer *tok, const char *text, size_t size, int32_t *ids, int max,
                  bool with_special) {
    Sink sink = {.ids = ids, .max = max};
    if (tok->kind != TOKENIZER_TINY && utf8_valid(text, size) < size) {
        reserve(tok->scratch, 3 * size, 0);
        size = utf8_repair(tok->scratch->text, text, size, false);
        text = tok->scratch->text;
    }
    char *const clean = tok->cleans_text ? text_clean_new(text, size, &size) : NULL;
    encode_between(tok, &sink, clean ? clean : text, size, false, with_special);
    free(clean);
    return sink.count;
}

int tokenizer_encode(const Tokenizer *tok, const char *text, size_t size, int32_t *ids, int max) {
    return encode(tok, text, size, ids, max, false);
}

int tokenizer_encode_special(const Tokenizer *tok, const char *text, size_t size, int32_t *ids,
                             int max) {
    return encode(tok, text, size, ids, max, true);
}

// ---- decoding ----
static void replace_all(char *text, const char *from, const char *to) { // to is shorter
    const size_t cut = strlen(from), put_size = strlen(to);
    char *out = text;
    for (const char *at = text; *at;) {
        if (strncmp(at, from, cut) == 0) {
            memcpy(out, to, put_size);
            out += put_size;
            at += cut;
        } else {
            *out++ = *at++;
        }
    }
    *out = '\0';
}

// Punctuation closes up, piece by piece, as tokenizers' WordPiece decoder does.
static void clean_up(char *piece) {
    static const char *const rules[][2] = {
        {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
        {" n't", "n't"}, {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"},
        {" 're", "'re"}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        replace_all(piece, rules[i][0], rules[i][1]);
    }
}

// Appends one piece of wordpiece text at out; returns its bytes.
static size_t put_wordpiece(const Tokenizer *tok, char *out, const Piece *piece, bool is_first) {
    const size_t prefix = strlen(tok->wordpiece.prefix);
    const bool is_inside = !is_first && prefix > 0 && (size_t)piece->size >= prefix &&
                           memcmp(piece->bytes, tok->wordpiece.prefix, prefix) == 0;
    size_t used = 0;
    if (!is_first && !is_inside) {
        out[used++] = ' ';
    }
    const size_t from = is_inside ? prefix : 0;
    memcpy(out + used, piece->bytes + from, (size_t)piece->size - from);
    used += (size_t)piece->size - from;
    out[used] = '\0';
    if (tok->cleans_up) {
        clean_up(out);
        used = strlen(out);
    }
    return used;
}

static bool is_blank_at(const char *text, size_t at) {
    int length;
    return unicode_is_python_space(utf8_read((const uint8_t *)text + at, &length));
}

// As Python's str.strip.
static size_t strip(char *text, size_t size) {
    size_t begin = 0, end = size;
    while (end > 0) {
        size_t at = end - 1;
        while (at > 0 && ((uint8_t)text[at] & 0xc0) == 0x80) {
            at--;
        }
        if (!is_blank_at(text, at)) {
            break;
        }
        end = at;
    }
    while (begin < end && is_blank_at(text, begin)) {
        for (begin++; begin < end && ((uint8_t)text[begin] & 0xc0) == 0x80; begin++) {
        }
    }
    memmove(text, text + begin, end - begin);
    return end - begin;
}

// The pieces one behind the other, as their kind joins them; out has room.
static size_t join(const Tokenizer *tok, char *out, const int32_t *ids, int n, int how) {
    size_t used = 0;
    bool is_after_word = false, is_first = true;
    for (int i = 0; i < n; i++) {
        const Piece *piece = &tok->table.pieces[ids[i]];
        if (piece->kind == PIECE_NONE ||
            (piece->kind == PIECE_SPECIAL && !(how & DECODE_SPECIAL))) {
            continue;
        }
        if (tok->kind == TOKENIZER_WORDPIECE) {
            used += put_wordpiece(tok, out + used, piece, is_first);
            is_first = false;
            continue;
        }
        if (tok->kind == TOKENIZER_TINY && is_after_word && piece->kind == PIECE_WORD) {
            out[used++] = ' ';
        }
        memcpy(out + used, piece->bytes, (size_t)piece->size);
        used += (size_t)piece->size;
        is_after_word = piece->kind == PIECE_WORD;
    }
    return used;
}

char *tokenizer_decode_new(const Tokenizer *tok, const int32_t *ids, int n, int how, size_t *size) {
    size_t room = 2;
    for (int i = 0; i < n; i++) {
        CHECK(ids[i] >= 0 && ids[i] < tok->vocab, "id %d of %d", ids[i], tok->vocab);
        room += (size_t)tok->table.pieces[ids[i]].size + 1; // and the space before it
    }
    char *text = xmalloc(room, 1);
    size_t used = join(tok, text, ids, n, how);
    if (tok->kind == TOKENIZER_BPE && utf8_valid(text, used) < used) {
        char *const repaired = xmalloc(3 * used + 1, 1);
        used = utf8_repair(repaired, text, used, how & DECODE_OPEN);
        free(text);
        text = repaired;
    }
    if (tok->has_word_ends) {
        used = strip(text, used);
    }
    text[used] = '\0';
    if (size) {
        *size = used;
    }
    return text;
}

char *tokenizer_text_new(const Tokenizer *tok, const int32_t *ids, int n, int how) {
    size_t size;
    char *text = tokenizer_decode_new(tok, ids, n, how, &size);
    for (char *nul = text; (nul = memchr(nul, '\0', (size_t)(text + size - nul)));) {
        *nul = '\x1a';
    }
    return text;
}
