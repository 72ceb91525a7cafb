// added: see added.h.
#include "added.h"

#include <stdlib.h>
#include <string.h>

#include "unicode.h"

void added_put(AddedTokens *added, const AddedToken *token) {
    CHECK(token->size > 0, "added token %d is empty", token->id);
    if (added->count == added->room) {
        added->room = added->room ? 2 * added->room : 16;
        added->tokens = xrealloc(added->tokens, (size_t)added->room, sizeof *added->tokens);
    }
    int at = added->count++;
    for (; at > 0 && added->tokens[at - 1].size < token->size; at--) {
        added->tokens[at] = added->tokens[at - 1];
    }
    AddedToken *mine = &added->tokens[at];
    *mine = *token;
    mine->name = xstrdup(token->name);
    mine->content = xmalloc(token->size, 1);
    memcpy(mine->content, token->content, token->size);
    added->starts[(uint8_t)mine->content[0]] = true;
    added->has[mine->is_normalized] = true;
    added->has_plain[mine->is_normalized] |= !mine->is_special;
}

void added_free(AddedTokens *added) {
    for (int i = 0; i < added->count; i++) {
        free(added->tokens[i].name);
        free(added->tokens[i].content);
    }
    free(added->tokens);
    *added = (AddedTokens){0};
}

// ---- neighbours ----
static size_t previous(const char *text, size_t at) {
    do {
        at--;
    } while (at > 0 && ((uint8_t)text[at] & 0xc0) == 0x80);
    return at;
}

static unsigned class_at(const char *text, size_t at, int *length) {
    return unicode_class(utf8_read((const uint8_t *)text + at, length));
}

static bool is_word_at(const char *text, size_t at) {
    int length;
    return class_at(text, at, &length) & CLASS_WORD;
}

static size_t before_blanks(const char *text, size_t at, size_t low) {
    int length;
    while (at > low && class_at(text, previous(text, at), &length) & CLASS_SPACE) {
        at = previous(text, at);
    }
    return at;
}

static size_t after_blanks(const char *text, size_t at, size_t size) {
    for (int length; at < size && class_at(text, at, &length) & CLASS_SPACE;) {
        at += (size_t)length;
    }
    return at;
}

// ---- matching ----
static const AddedToken *longest_at(const AddedTokens *added, const char *text, size_t left,
                                    bool in_normalized) {
    for (int i = 0; i < added->count; i++) {
        const AddedToken *token = &added->tokens[i];
        if (token->is_normalized == in_normalized && token->size <= left &&
            memcmp(token->content, text, token->size) == 0) {
            return token;
        }
    }
    return NULL;
}

AddedMatch added_find(const AddedTokens *added, const char *text, size_t size, size_t from,
                      bool in_normalized, bool with_special) {
    const AddedMatch none = {size, size, NULL};
    if (!(with_special ? added->has : added->has_plain)[in_normalized]) {
        return none;
    }
    for (size_t at = from; at < size; at++) {
        if (!added->starts[(uint8_t)text[at]]) {
            continue;
        }
        const AddedToken *token = longest_at(added, text + at, size - at, in_normalized);
        if (!token) {
            continue;
        }
        const size_t end = at + token->size;
        const bool is_glued = token->single_word &&
                              ((at > 0 && is_word_at(text, previous(text, at))) ||
                               (end < size && is_word_at(text, end)));
        if ((token->is_special && !with_special) || is_glued) {
            at = end - 1; // what was matched is passed over whole
            continue;
        }
        return (AddedMatch){token->lstrip ? before_blanks(text, at, from) : at,
                            token->rstrip ? after_blanks(text, end, size) : end, token};
    }
    return none;
}

const AddedToken *added_by_name(const AddedTokens *added, const char *name) {
    for (int i = 0; i < added->count; i++) {
        if (strcmp(added->tokens[i].name, name) == 0) {
            return &added->tokens[i];
        }
    }
    return NULL;
}

uint64_t added_hash(const AddedTokens *added, uint64_t seed) {
    for (int i = 0; i < added->count; i++) {
        const AddedToken *t = &added->tokens[i];
        const int32_t facts[] = {t->id,     t->single_word,   t->lstrip,
                                 t->rstrip, t->is_normalized, t->is_special};
        seed = xxh64(facts, sizeof facts, xxh64(t->content, t->size, seed));
    }
    return seed;
}
