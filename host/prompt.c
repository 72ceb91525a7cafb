// prompt: see prompt.h.
#include "prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- forms ----
const char *const *prompt_specials(PromptForm form, int *count) {
    static const char *const qwen2vl[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                          "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"};
    static const char *const pixtral[] = {"<s>",   "</s>",        "[INST]",   "[/INST]",
                                          "[IMG]", "[IMG_BREAK]", "[IMG_END]"};
    *count = form == PROMPT_PIXTRAL ? (int)(sizeof pixtral / sizeof *pixtral)
                                    : (int)(sizeof qwen2vl / sizeof *qwen2vl);
    return form == PROMPT_PIXTRAL ? pixtral : qwen2vl;
}

static int32_t special(const Tokenizer *tokenizer, const char *name) {
    const int32_t id = tokenizer_id(tokenizer, name);
    if (id < 0) {
        die(EXIT_BAD_DATA, "tokenizer: no special token '%s', which the prompt form needs", name);
    }
    return id;
}

PromptMaker prompt_maker_new(PromptForm form, const Tokenizer *tokenizer,
                             const ReaderConfig *reader, int max_tokens) {
    PromptMaker maker = {.form = form, .tokenizer = tokenizer, .reader = reader,
                         .max_tokens = max_tokens, .instruction = "",
                         .image_break = -1, .image_end = -1, .vision_start = -1, .vision_end = -1,
                         .im_start = -1, .im_end = -1, .bos = -1, .inst = -1, .inst_end = -1,
                         .answer_end = -1};
    // The tiny form takes its image tokens from the reader's family.
    if (form == PROMPT_PIXTRAL || reader->family == READER_PIXTRAL) {
        maker.image = special(tokenizer, "[IMG]");
        maker.image_break = special(tokenizer, "[IMG_BREAK]");
        maker.image_end = special(tokenizer, "[IMG_END]");
    } else {
        maker.image = special(tokenizer, "<|image_pad|>");
        maker.vision_start = special(tokenizer, "<|vision_start|>");
        maker.vision_end = special(tokenizer, "<|vision_end|>");
    }
    if (form == PROMPT_PIXTRAL) {
        maker.bos = special(tokenizer, "<s>");
        maker.inst = special(tokenizer, "[INST]");
        maker.inst_end = special(tokenizer, "[/INST]");
        maker.answer_end = special(tokenizer, "</s>");
    } else if (form == PROMPT_QWEN2VL) {
        maker.im_start = special(tokenizer, "<|im_start|>");
        maker.im_end = maker.answer_end = special(tokenizer, "<|im_end|>");
    }
    CHECK(maker.image == reader->image_id, "image token %d, the reader's is %d", maker.image,
          reader->image_id);
    return maker;
}

uint64_t prompt_hash(const PromptMaker *maker) {
    const char *const instruction = maker->instruction;
    const uint64_t words[] = {maker->form, maker->tokenizer->hash, (uint64_t)maker->max_tokens,
                              maker->is_literal, maker->has_blanks,
                              xxh64(instruction, strlen(instruction), 0)};
    return xxh64(words, sizeof words, 0);
}

// ---- ids ----
// Makes room for `more` further ids and returns where they go.
static int32_t *grow(PromptIds *ids, int more) {
    while (ids->room - ids->count < more) {
        ids->room = ids->room ? 2 * ids->room : 256;
        ids->ids = xrealloc(ids->ids, (size_t)ids->room, sizeof *ids->ids);
    }
    ids->count += more;
    return ids->ids + ids->count - more;
}

void prompt_push(PromptIds *ids, int32_t id) { *grow(ids, 1) = id; }

void prompt_push_text(const PromptMaker *maker, PromptIds *ids, const char *text) {
    const size_t size = strlen(text);
    const int count = tokenizer_encode(maker->tokenizer, text, size, NULL, 0);
    tokenizer_encode(maker->tokenizer, text, size, grow(ids, count), count);
}

void prompt_push_image(const PromptMaker *maker, PromptIds *ids, const ReaderImage *image) {
    if (maker->image_break >=
        0) { // Pixtral: every row of patches ends in a break, the last in an end
        for (int row = 0; row < image->rows; row++) {
            for (int column = 0; column < image->columns; column++) {
                prompt_push(ids, maker->image);
            }
            prompt_push(ids, row + 1 < image->rows ? maker->image_break : maker->image_end);
        }
    } else {
        prompt_push(ids, maker->vision_start);
        for (int i = vision_tokens(&maker->reader->vision, image); i > 0; i--) {
            prompt_push(ids, maker->image);
        }
        prompt_push(ids, maker->vision_end);
    }
}

// ---- one prompt ----
// The text between two special tokens is cut into tokens as one piece.
static void push_joined(const PromptMaker *maker, PromptIds *ids, const char *a, const char *b) {
    char *text = xformat_new("%s%s", a, b);
    prompt_push_text(maker, ids, text);
    free(text);
}

static void push_head(const PromptMaker *maker, PromptIds *ids) {
    const char *before = "";
    if (maker->form == PROMPT_PIXTRAL) {
        prompt_push(ids, maker->bos);
        prompt_push(ids, maker->inst);
        before = maker->has_blanks ? " " : "";
    } else if (maker->form == PROMPT_QWEN2VL) {
        prompt_push(ids, maker->im_start);
        prompt_push_text(maker, ids, "system\nYou are a helpful assistant.");
        prompt_push(ids, maker->im_end);
        prompt_push_text(maker, ids, "\n");
        prompt_push(ids, maker->im_start);
        before = "user\n";
    }
    push_joined(maker, ids, before, maker->instruction);
}

static void push_tail(const PromptMaker *maker, PromptIds *ids, const char *question) {
    char *literal = maker->is_literal ? prompt_literal_new(question) : NULL;
    push_joined(maker, ids, literal ? literal : question, maker->has_blanks ? " " : "");
    free(literal);
    if (maker->form == PROMPT_PIXTRAL) {
        prompt_push(ids, maker->inst_end);
    } else if (maker->form == PROMPT_QWEN2VL) {
        prompt_push(ids, maker->im_end);
        prompt_push_text(maker, ids, "\n");
        prompt_push(ids, maker->im_start);
        prompt_push_text(maker, ids, "assistant\n");
    }
}

char *prompt_literal_new(const char *question) {
    // What Python's strip takes of ASCII.
    static const char blanks[] = " \t\n\v\f\r\x1c\x1d\x1e\x1f";
    question += strspn(question, blanks);
    size_t size = strlen(question);
    while (size > 0 && strchr(blanks, question[size - 1])) {
        size--;
    }
    return xformat_new("<image>Question: %.*s Answer:", (int)size, question);
}

// The caption with the words around it, as ids of their own, so that it can be cut alone.
static PromptIds caption_ids(const PromptMaker *maker, const char *caption) {
    PromptIds ids = {0};
    char *text = maker->form == PROMPT_TINY ? xformat_new("background : %s", caption)
                                            : xformat_new("background: %s\n\n", caption);
    prompt_push_text(maker, &ids, text);
    free(text);
    return ids;
}

int prompt_add(PromptMaker *maker, ReaderBatch *batch, const PromptInput *input,
               const int32_t *answer, int answer_count) {
    PromptIds ids = {0};
    ReaderImage images[2];
    int image_count = 0;
    push_head(maker, &ids);
    if (input->passage_image.rows > 0) {
        prompt_push_image(maker, &ids, &input->passage_image);
        images[image_count++] = input->passage_image;
    }
    // What follows the caption is built first, to know how much room the caption has.
    PromptIds tail = {0};
    prompt_push_image(maker, &tail, &input->query_image);
    images[image_count++] = input->query_image;
    push_tail(maker, &tail, input->question);
    const int around = ids.count + tail.count + answer_count, room = maker->max_tokens - around;
    if (room < 0) {
        die(EXIT_CONFIG,
            "prompt.max_tokens: %d tokens do not hold images and question (%d); raise it",
            maker->max_tokens, around);
    }
    if (input->passage_image.rows > 0) {
        PromptIds caption = caption_ids(maker, input->caption);
        maker->cut_captions += caption.count > room;
        for (int i = 0; i < caption.count && i < room; i++) {
            prompt_push(&ids, caption.ids[i]);
        }
        free(caption.ids);
    }
    for (int i = 0; i < tail.count; i++) {
        prompt_push(&ids, tail.ids[i]);
    }
    // The last prompt row predicts the first answer token, each answer row the next one; the last
    // answer token itself predicts nothing that is asked for, so it is not fed.
    const int wanted_count = answer_count > 0 ? answer_count : 1;
    int32_t *wanted = xmalloc((size_t)wanted_count, sizeof *wanted);
    for (int i = 0; i < wanted_count; i++) {
        wanted[i] = ids.count - 1 + i;
    }
    for (int i = 0; i + 1 < answer_count; i++) {
        prompt_push(&ids, answer[i]);
    }
    reader_batch_add(batch, maker->reader, ids.ids, ids.count, images, image_count, wanted,
                     wanted_count);
    free(wanted);
    free(tail.ids);
    free(ids.ids);
    return wanted_count;
}
