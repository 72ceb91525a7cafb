// chat: see chat.h.
#include "chat.h"

#include <stdlib.h>
#include <string.h>

// ---- building ----
void chat_begin_message(Chat *chat, ChatRole role) {
    chat->messages = xrealloc(chat->messages, (size_t)chat->count + 1, sizeof *chat->messages);
    chat->messages[chat->count++] = (ChatMessage){.role = role};
}

void chat_add_part(Chat *chat, bool is_picture, const char *text) {
    ChatMessage *message = &chat->messages[chat->count - 1];
    message->parts = xrealloc(message->parts, (size_t)message->count + 1, sizeof *message->parts);
    message->parts[message->count++] = (ChatPart){is_picture, xstrdup(text)};
    chat->pictures += is_picture;
}

void chat_free(Chat *chat) {
    for (int m = 0; m < chat->count; m++) {
        for (int i = 0; i < chat->messages[m].count; i++) {
            free(chat->messages[m].parts[i].text);
        }
        free(chat->messages[m].parts);
    }
    free(chat->messages);
    *chat = (Chat){0};
}

// ---- reading ----
static const char *const role_names[] = {"system", "user", "assistant"};

static Error wrong(int message, const char *what) {
    return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "message %d: %s", message + 1, what);
}

static Error named(int message, Error error) {
    return error.code ? wrong(message, error.text) : error;
}

// A part {"type": "text", "text": ..} or {"type": "image", "image": PATH}.
static Error read_part(Chat *chat, const json_t *part) {
    const char *type = NULL, *text = NULL;
    if (!json_is_object(part)) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member 'content' wants objects, got %s",
                        json_type_name(part));
    }
    Error error = json_member_text(part, "type", true, &type);
    if (error.code) {
        return error;
    }
    const bool is_picture = strcmp(type, "image") == 0;
    if (!is_picture && strcmp(type, "text") != 0) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "a part of type '%.40s'; text and image are "
                        "supported", type);
    }
    error = json_member_text(part, is_picture ? "image" : "text", true, &text);
    if (!error.code && is_picture && chat->messages[chat->count - 1].role != CHAT_USER) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "only a user shows pictures");
    }
    if (!error.code) {
        chat_add_part(chat, is_picture, text);
    }
    return error;
}

static Error read_content(Chat *chat, const json_t *content) {
    if (json_is_string(content)) {
        chat_add_part(chat, false, json_string_value(content));
        return error_none();
    }
    if (!json_is_array(content)) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member 'content' wants a text or an array, "
                        "got %s", json_type_name(content));
    }
    Error error = error_none();
    for (size_t i = 0; !error.code && i < json_array_size(content); i++) {
        error = read_part(chat, json_array_get(content, i));
    }
    return error;
}

static Error read_message(Chat *chat, const json_t *message) {
    const char *name = NULL;
    if (!json_is_object(message)) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "wants an object, got %s",
                        json_type_name(message));
    }
    Error error = json_member_text(message, "role", true, &name);
    if (error.code) {
        return error;
    }
    int role = 0;
    while (role < 3 && strcmp(name, role_names[role]) != 0) {
        role++;
    }
    const int last = chat->count ? (int)chat->messages[chat->count - 1].role : CHAT_SYSTEM;
    const bool is_turn = role == CHAT_SYSTEM   ? chat->count == 0
                         : role == CHAT_USER   ? last != CHAT_USER
                                               : last == CHAT_USER;
    if (role == 3 || !is_turn) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "role '%.40s' out of turn; an optional "
                        "system message, then user and assistant alternate", name);
    }
    chat_begin_message(chat, (ChatRole)role);
    return read_content(chat, json_object_get(message, "content"));
}

Error chat_read_new(Chat *out, const json_t *object) {
    const json_t *messages = NULL;
    *out = (Chat){0};
    Error error = json_member_array(object, "messages", true, &messages);
    for (size_t i = 0; !error.code && i < json_array_size(messages); i++) {
        error = named((int)i, read_message(out, json_array_get(messages, i)));
    }
    if (!error.code && (out->count == 0 || out->messages[out->count - 1].role != CHAT_USER)) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                         "member 'messages': the last one must be the user's");
    }
    if (error.code) {
        chat_free(out);
    }
    return error;
}

// ---- prompts ----
// Ids so far, and text behind them that is not cut into tokens yet: what stands between two special
// tokens is cut as one piece.
typedef struct {
    const PromptMaker *maker;
    PromptIds ids;
    char *text;
} Writer;

static void say(Writer *writer, const char *text) {
    char *longer = xformat_new("%s%s", writer->text, text);
    free(writer->text);
    writer->text = longer;
}

static void flush(Writer *writer) {
    prompt_push_text(writer->maker, &writer->ids, writer->text);
    writer->text[0] = '\0';
}

static void put(Writer *writer, int32_t id) {
    flush(writer);
    prompt_push(&writer->ids, id);
}

static void put_content(Writer *writer, const ChatMessage *message, const ReaderImage **image) {
    for (int i = 0; i < message->count; i++) {
        if (message->parts[i].is_picture) {
            flush(writer);
            prompt_push_image(writer->maker, &writer->ids, (*image)++);
        } else {
            say(writer, message->parts[i].text);
        }
    }
}

static void write_qwen2vl(Writer *writer, const Chat *chat, const ReaderImage *image) {
    const PromptMaker *maker = writer->maker;
    if (chat->messages[0].role != CHAT_SYSTEM) {
        put(writer, maker->im_start);
        say(writer, "system\nYou are a helpful assistant.");
        put(writer, maker->im_end);
        say(writer, "\n");
    }
    for (int m = 0; m < chat->count; m++) {
        put(writer, maker->im_start);
        say(writer, role_names[chat->messages[m].role]);
        say(writer, "\n");
        put_content(writer, &chat->messages[m], &image);
        put(writer, maker->im_end);
        say(writer, "\n");
    }
    put(writer, maker->im_start);
    say(writer, "assistant\n");
}

static void write_pixtral(Writer *writer, const Chat *chat, const ReaderImage *image) {
    const PromptMaker *maker = writer->maker;
    put(writer, maker->bos);
    for (int m = 0; m < chat->count; m++) {
        const ChatMessage *message = &chat->messages[m];
        if (message->role == CHAT_USER) {
            put(writer, maker->inst);
            if (m + 1 == chat->count && chat->messages[0].role == CHAT_SYSTEM) {
                put_content(writer, &chat->messages[0], &image);
                say(writer, "\n\n");
            }
            put_content(writer, message, &image);
            put(writer, maker->inst_end);
        } else if (message->role == CHAT_ASSISTANT) {
            put_content(writer, message, &image);
            put(writer, maker->answer_end);
        }
    }
}

void chat_add_prompt(const PromptMaker *maker, ReaderBatch *batch, const Chat *chat,
                     const ReaderImage *images) {
    Writer writer = {.maker = maker, .text = xstrdup("")};
    const ReaderImage *image = images;
    switch (maker->form) {
    case PROMPT_QWEN2VL: write_qwen2vl(&writer, chat, images); break;
    case PROMPT_PIXTRAL: write_pixtral(&writer, chat, images); break;
    case PROMPT_TINY:
        for (int m = 0; m < chat->count; m++) {
            put_content(&writer, &chat->messages[m], &image);
        }
        break;
    }
    flush(&writer);
    const int T = writer.ids.count;
    if (T > maker->max_tokens || T == 0) {
        die(EXIT_CONFIG, T ? "prompt.max_tokens: %d tokens do not hold a chat of %d; raise it"
                           : "prompt.max_tokens: %d tokens, and a chat of %d, which is none",
            maker->max_tokens, T);
    }
    const int32_t last = T - 1;
    reader_batch_add(batch, maker->reader, writer.ids.ids, T, images, chat->pictures, &last, 1);
    free(writer.ids.ids);
    free(writer.text);
}
