// prompt: from a query and a passage to the reader's token ids and images.
//
//   {instruction} [passage image] "background: {caption}\n\n" [query image] {question}
//   {instruction} [query image] {question}                                      closed book
//
// The forms differ in what stands around: `tiny` nothing (one blank between words), `qwen2vl`
// ChatML with the default system text, `pixtral` <s>[INST]...[/INST]. An image is the tokens its
// family puts around and between its features. Captions too long for max_tokens are cut at the end,
// and only they; cuts are counted. Left out: several passages in one prompt; several turns are
// chat.h's.
// Sources: the chat templates published with Qwen2-VL-7B-Instruct and pixtral-12b; the message
// order is that of JOMED's code.
#ifndef JOMED_HOST_PROMPT_H
#define JOMED_HOST_PROMPT_H

#include "models/reader.h"
#include "tokenizer.h"

typedef enum { PROMPT_TINY, PROMPT_QWEN2VL, PROMPT_PIXTRAL } PromptForm;

typedef struct {
    PromptForm form;
    const Tokenizer *tokenizer;
    const ReaderConfig *reader;
    int max_tokens;       // of a whole prompt
    // Ids found once by prompt_form_new; -1 where the form has none.
    int32_t image, vision_start, vision_end, image_break, image_end, im_start, im_end, bos, inst,
        inst_end;
    int32_t answer_end;   // ends an answer in training: <|im_end|>, </s>; -1: nothing does
    const char *instruction; // before the first image; borrowed, "" at first
    bool is_literal;      // exact.pixtral_literal
    bool has_blanks;      // exact.sft_caps, Pixtral: [INST] and [/INST] stand off by a blank
    int cut_captions;     // prompts whose caption was cut
} PromptMaker;
// Dies with EXIT_BAD_DATA when the tokenizer lacks a special token of the form.
PromptMaker prompt_maker_new(PromptForm form, const Tokenizer *tokenizer,
                             const ReaderConfig *reader, int max_tokens);
// Special tokens a tiny tokenizer must have for a form; *count of them.
const char *const *prompt_specials(PromptForm form, int *count);

// What goes into one prompt. passage_image.rows == 0: no passage (closed book).
typedef struct {
    ReaderImage passage_image, query_image;
    const char *caption, *question;
} PromptInput;

// Appends the prompt to the batch; the row that predicts the first answer token is wanted. answer:
// ids that follow the prompt (teacher forcing), of which all rows that predict one are wanted, or
// NULL. Text is only text: a caption that spells a special token gives its bytes. Returns the
// number of wanted rows. Dies with EXIT_CONFIG when max_tokens does not hold what stands around the
// caption.
int prompt_add(PromptMaker *maker, ReaderBatch *batch, const PromptInput *input,
               const int32_t *answer, int answer_count);

// Ids of a prompt in the making, and what goes into them: for prompts of another order (chat.h).
typedef struct {
    int32_t *ids; // (count), to be freed
    int count, room;
} PromptIds;
void prompt_push(PromptIds *ids, int32_t id);
void prompt_push_text(const PromptMaker *maker, PromptIds *ids, const char *text);
// The tokens of the family around and between an image's, and those.
void prompt_push_image(const PromptMaker *maker, PromptIds *ids, const ReaderImage *image);

// exact.pixtral_literal: what the original asks Pixtral where a sample brings its own question,
// "<image>Question: {question} Answer:", the question without blanks around it and the tag as plain
// text. Caller frees.
char *prompt_literal_new(const char *question);
// Everything of the form that changes what the reader sees: for the key of the score store.
uint64_t prompt_hash(const PromptMaker *maker);

#endif
