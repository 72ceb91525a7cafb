// sharegpt: see sharegpt.h.
#include "sharegpt.h"

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "jsonl.h"

#define TAG "<image>"
#define BACKGROUND "background: "

// ---- writing ----
typedef struct {
    char *bytes;
    size_t size, room;
} Text;

static void put(Text *out, const char *bytes, size_t size) {
    if (out->room - out->size < size + 1) {
        out->room = 2 * (out->size + size) + 256;
        out->bytes = xrealloc(out->bytes, out->room, 1);
    }
    memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
    out->bytes[out->size] = '\0';
}

static void put_text(Text *out, const char *text) { put(out, text, strlen(text)); }

// One UTF-16 unit as Python escapes it.
static void put_unit(Text *out, unsigned unit) {
    static const char digits[] = "0123456789abcdef";
    const char text[] = {'\\', 'u', digits[unit >> 12 & 15], digits[unit >> 8 & 15],
                         digits[unit >> 4 & 15], digits[unit & 15]};
    put(out, text, sizeof text);
}

static unsigned code_point(const uint8_t *p, int length) {
    unsigned code = length == 1 ? p[0] : p[0] & (0x7fu >> length);
    for (int i = 1; i < length; i++) {
        code = code << 6 | (p[i] & 0x3f);
    }
    return code;
}

// The inside of a JSON string as json.dump writes it: in ASCII. What is not UTF-8 becomes U+FFFD.
static void put_escaped(Text *out, const char *text) {
    static const char plain[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    const uint8_t *p = (const uint8_t *)text, *const end = p + strlen(text);
    while (p < end) {
        int bad = 0;
        const int length = utf8_length(p, end, &bad);
        const unsigned code = length ? code_point(p, length) : 0xfffd;
        const char *const found = code < 0x80 ? strchr(plain, (int)code) : NULL;
        if (found) {
            const char pair[] = {'\\', letters[found - plain]};
            put(out, pair, sizeof pair);
        } else if (code >= 0x20 && code < 0x7f) {
            const char letter = (char)code;
            put(out, &letter, 1);
        } else if (code >= 0x10000) {
            put_unit(out, 0xd800 + (code - 0x10000) / 0x400);
            put_unit(out, 0xdc00 + (code - 0x10000) % 0x400);
        } else {
            put_unit(out, code);
        }
        p += length ? length : bad;
    }
}

static void put_record(Text *out, const char *instruction, const Record *query,
                       const Record *passage) {
    put_text(out, "{\"messages\": [{\"content\": \"");
    put_escaped(out, instruction);
    if (passage) {
        put_text(out, TAG BACKGROUND);
        put_escaped(out, passage->text);
        put_escaped(out, "\n\n");
    }
    put_text(out, TAG);
    put_escaped(out, query->question);
    put_text(out, "\", \"role\": \"user\"}, {\"content\": \"");
    put_escaped(out, query->answer);
    put_text(out, "\", \"role\": \"assistant\"}], \"images\": [\"");
    if (passage) {
        put_escaped(out, passage->path);
        put_text(out, "\", \"");
    }
    put_escaped(out, query->path);
    put_text(out, "\"]}\n");
}

Error sharegpt_lines_new(char **out, const char *instruction, const Dataset *queries, int query,
                         const Dataset *corpus, const int32_t *passages, int P) {
    *out = NULL;
    Text text = {0};
    const Record *const q = &queries->records[query];
    Error error = error_none();
    for (int i = 0; i < P && !error.code; i++) {
        const Record *const d = passages[i] < 0 ? NULL : &corpus->records[passages[i]];
        if (!q->path[0] || (d && !d->path[0])) {
            error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                             "query %d or its passage %d has no image file; name files in the data",
                             query, passages[i]);
        } else if (strstr(instruction, TAG) || strstr(q->question, TAG) ||
                   (d && strstr(d->text, TAG))) {
            error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "query %d or its passage %d has the "
                             "text '" TAG "', which would be taken for a picture; take it out",
                             query, passages[i]);
        } else {
            put_record(&text, instruction, q, d);
        }
    }
    if (error.code) {
        free(text.bytes);
    } else {
        *out = text.bytes ? text.bytes : xstrdup("");
    }
    return error;
}

// ---- reading ----
static Error bad(int row, const char *what) {
    return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "record %d: %.120s", row + 1, what);
}

// The content of the message with this role.
static const char *content_of(const json_t *messages, size_t i, const char *role) {
    const json_t *const message = json_array_get(messages, i);
    const char *const have = json_string_value(json_object_get(message, "role"));
    return have && strcmp(have, role) == 0
               ? json_string_value(json_object_get(message, "content")) : NULL;
}

// Cuts "A<image>background: B\n\n<image>C", or "A<image>C", at its tags, in place. False when it is
// not of this form. caption is NULL for the second.
static bool cut_content(char *text, int images, char **caption, char **question) {
    char *const first = strstr(text, TAG);
    *caption = NULL;
    if (!first) {
        return false;
    }
    *first = '\0';
    *question = first + strlen(TAG);
    if (images == 2) {
        char *const second = strstr(*question, TAG);
        if (!second || second - *question < (long)strlen(BACKGROUND "\n\n") ||
            strncmp(*question, BACKGROUND, strlen(BACKGROUND)) != 0 ||
            strncmp(second - 2, "\n\n", 2) != 0) {
            return false;
        }
        second[-2] = '\0';
        *caption = *question + strlen(BACKGROUND);
        *question = second + strlen(TAG);
    }
    return !strstr(*question, TAG);
}

// One record; on success its rows are in the sets.
static Error take_record(Sharegpt *out, const json_t *record, int row, const char *name) {
    const json_t *const messages = json_object_get(record, "messages"),
                 *const images = json_object_get(record, "images");
    const char *const user = content_of(messages, 0, "user"),
               *const answer = content_of(messages, 1, "assistant");
    if (json_array_size(messages) != 2 || !user || !answer || !answer[0]) {
        return bad(row, "wants two messages with content, of user and assistant");
    }
    const int count = (int)json_array_size(images);
    const char *const first = json_string_value(json_array_get(images, 0)),
               *const last = json_string_value(json_array_get(images, (size_t)count - 1));
    if (count < 1 || count > 2 || !first || !last) {
        return bad(row, "wants one or two images, by their files");
    }
    char *text = xstrdup(user), *caption, *question;
    Error error = error_none();
    if (!cut_content(text, count, &caption, &question)) {
        error = bad(row, "the user's content is not '<image>background: ...\\n\\n<image>...' with "
                         "an <image> for each of its images");
    } else if (out->instruction && strcmp(out->instruction, text) != 0) {
        error = bad(row, "another instruction before its first <image> than the records before");
    } else {
        if (!out->instruction) {
            out->instruction = xstrdup(text);
        }
        Record query = record_empty(), passage = record_empty();
        query.question = question;
        query.answer = answer;
        query.path = last;
        query.source = passage.source = name;
        query.line = passage.line = row + 1;
        query.split = SPLIT_TRAIN;
        passage.text = caption ? caption : "";
        passage.path = first;
        out->passages[row] = caption ? dataset_add(out->corpus, &passage) : -1;
        dataset_add(out->queries, &query);
    }
    free(text);
    return error;
}

static Error take_array(Sharegpt *out, const char *name, const void *text, size_t size) {
    json_t *root;
    Error error = json_parse_new(&root, text, size);
    const int n = (int)json_array_size(root);
    out->passages = xcalloc((size_t)n + 1, sizeof *out->passages);
    for (int i = 0; i < n && !error.code; i++) {
        error = take_record(out, json_array_get(root, (size_t)i), i, name);
    }
    json_decref(root);
    return error;
}

static Error take_lines(Sharegpt *out, const char *name, const void *text, size_t size) {
    Jsonl lines;
    jsonl_begin(&lines, name, text, size);
    json_t *record;
    Error error = jsonl_next(&lines, &record);
    for (int i = 0; !error.code && record; i++) {
        out->passages = xrealloc(out->passages, (size_t)i + 1, sizeof *out->passages);
        error = take_record(out, record, i, name);
        json_decref(record);
        if (!error.code) {
            error = jsonl_next(&lines, &record);
        }
    }
    jsonl_end(&lines);
    return error;
}

Error sharegpt_parse_new(Sharegpt *out, Dataset *queries, Dataset *corpus, const char *name,
                         const void *text, size_t size) {
    *out = (Sharegpt){.queries = queries, .corpus = corpus};
    const char *start = text;
    size_t left = size;
    while (left && strchr(" \t\r\n", *start)) {
        start++;
        left--;
    }
    const bool is_array = left && *start == '[';
    Error error = is_array ? take_array(out, name, text, size) : take_lines(out, name, text, size);
    if (!error.code && queries->n == 0) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "no records");
    }
    return error;
}

void sharegpt_free(Sharegpt *records) {
    dataset_free(records->queries);
    dataset_free(records->corpus);
    free(records->passages);
    free(records->instruction);
    *records = (Sharegpt){0};
}
