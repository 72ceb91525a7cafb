// chat: conversations with pictures, from JSON to the reader's prompts.
//
//   {"messages": [{"role": "system", "content": "Answer in one word."},
//                 {"role": "user", "content": [{"type": "image", "image": "a.png"},
//                                              {"type": "text", "text": "What is this?"}]},
//                 {"role": "assistant", "content": "A lung."}, {"role": "user", "content": ..}]}
//
// A system message may come first; then user and assistant take turns, the user last. Texts that
// follow each other stand without a blank between them. How turns are written is the family's:
//   qwen2vl   <|im_start|>{role}\n{content}<|im_end|>\n for each message, a default system message
//             where there is none, <|im_start|>assistant\n at the end
//   pixtral   <s>, [INST]{content}[/INST] for users, {content}</s> for assistants; the system's
//             text and a blank line come first in the last [INST]
//   tiny      the contents alone
// Leaves out tools, videos, and pictures inside the JSON. Sources: the chat templates published
// with Qwen2-VL-7B-Instruct and pixtral-12b.
#ifndef JOMED_HOST_CHAT_H
#define JOMED_HOST_CHAT_H

#include "json.h"
#include "prompt.h"

typedef enum { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT } ChatRole;
typedef struct {
    bool is_picture;
    char *text; // or the path of the picture
} ChatPart;
typedef struct {
    ChatRole role;
    ChatPart *parts;
    int count;
} ChatMessage;
typedef struct {
    ChatMessage *messages;
    int count, pictures;
} Chat;

// The member "messages" of an object. Error: EXIT_BAD_DATA, offset ERROR_NOWHERE; the text names
// message and member. On an error there is nothing to free.
Error chat_read_new(Chat *out, const json_t *object);
void chat_free(Chat *chat);
// Building one: a message without parts, and a part of the last message.
void chat_begin_message(Chat *chat, ChatRole role);
void chat_add_part(Chat *chat, bool is_picture, const char *text);

// Appends the prompt; its last row is wanted. images: (chat->pictures), in reading order. Text is
// only text, also where it spells a special token. Dies with EXIT_CONFIG when the prompt is longer
// than max_tokens: nothing of a chat is cut.
void chat_add_prompt(const PromptMaker *maker, ReaderBatch *batch, const Chat *chat,
                     const ReaderImage *images);

#endif
