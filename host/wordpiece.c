// wordpiece: see wordpiece.h.
#include "wordpiece.h"

#include <string.h>

static bool is_continuation(char byte) { return ((uint8_t)byte & 0xc0) == 0x80; }

int wordpiece_encode(const WordPiece *model, const Vocab *vocab, const char *word, size_t size,
                     int32_t *out) {
    int chars = 0;
    for (size_t i = 0; i < size && chars <= model->max_chars; i++) {
        chars += !is_continuation(word[i]);
    }
    out[0] = model->unknown;
    if (chars > model->max_chars) {
        return 1;
    }
    // The word with room in front: the prefix overwrites what has been cut off already.
    char room[WORDPIECE_MOST_PREFIX + 4 * WORDPIECE_MOST_CHARS];
    const size_t prefix = strlen(model->prefix), longest = (size_t)model->longest;
    char *const text = room + prefix;
    memcpy(text, word, size);
    int count = 0;
    for (size_t at = 0; at < size;) {
        const size_t before = at > 0 ? prefix : 0;
        memcpy(text + at - before, model->prefix, before);
        size_t end = size - at + before > longest ? at + longest - before : size;
        int32_t id = -1;
        for (; end > at; end--) {
            if (end == size || !is_continuation(text[end])) {
                id = vocab_find(vocab, text + at - before, end - at + before);
                if (id >= 0) {
                    break;
                }
            }
        }
        if (id < 0) {
            out[0] = model->unknown;
            return 1;
        }
        out[count++] = id;
        at = end;
    }
    return count;
}
