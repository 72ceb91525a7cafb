// test_prompt_reference: prompts with the published tokenizers, against transformers' processors
// (tools/vectors_prompts.py): every token id, so the images' tokens too, the positions on three
// axes, and the rows and targets of fine-tuning; and chats of several turns.
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "host/chat.h"
#include "host/file.h"
#include "host/processor.h"
#include "host/prompt.h"
#include "host/tokenizer_files.h"
#include "tests/check.h"
#include "tests/tokenizer_folders.h"

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

// The size an image has for the reader; rows 0 for null.
static ReaderImage image_of(const json_t *size, const char *preset, int P) {
    ReaderImage image = {0};
    if (json_is_array(size)) {
        ProcessorConfig config;
        CHECK(processor_preset(preset, &config), "no preset '%s'", preset);
        int width, height;
        error_die(preset, processor_size(&config, (int)json_integer_value(json_array_get(size, 0)),
                                         (int)json_integer_value(json_array_get(size, 1)), &width,
                                         &height));
        image.columns = width / P;
        image.rows = height / P;
    }
    return image;
}

static void expect_list(const char *what, const int32_t *got, int count, const json_t *want) {
    int at = 0;
    while (at < count && json_integer_value(json_array_get(want, (size_t)at)) == got[at]) {
        at++;
    }
    EXPECT(at == count, "%s %d of %d is %d, not %lld", what, at, count, got[at],
           (long long)json_integer_value(json_array_get(want, (size_t)at)));
}

// want: what transformers gave; the last token of the answer is predicted, never fed.
static void expect_prompt(PromptMaker *maker, const ReaderBatch *batch, const int32_t *target,
                          int target_count, const json_t *want) {
    const json_t *ids = json_object_get(want, "ids"), *answer = json_object_get(want, "answer");
    const int T = (int)json_array_size(ids);
    EXPECT((int)json_array_size(answer) == target_count, "%d targets", target_count);
    expect_list("target", target, target_count, answer);
    EXPECT(batch->N == T + target_count - 1, "%d tokens, %d wanted", batch->N,
           T + target_count - 1);
    expect_list("token", batch->ids, T, ids);
    expect_list("answer token", batch->ids + T, target_count - 1, answer);
    EXPECT(batch->R == target_count, "%d rows", batch->R);
    for (int r = 0; r < target_count; r++) {
        EXPECT(batch->wanted[r] == T - 1 + r, "row %d is %d", r, batch->wanted[r]);
    }
    const json_t *positions = json_object_get(want, "positions");
    EXPECT(positions || maker->form == PROMPT_PIXTRAL, "no positions");
    for (size_t axis = 0; positions && axis < 3; axis++) {
        expect_list("position", batch->positions + axis * (size_t)batch->capacity_N, batch->N,
                    json_array_get(positions, axis));
    }
}

static void expect_chat(const PromptMaker *maker, const json_t *object, const json_t *sizes,
                        const char *preset, const json_t *want) {
    Chat chat;
    ReaderImage images[8];
    error_die("chat", chat_read_new(&chat, object));
    CHECK(chat.pictures == (int)json_array_size(sizes) && chat.pictures <= 8, "%d pictures",
          chat.pictures);
    for (int i = 0; i < chat.pictures; i++) {
        images[i] = image_of(json_array_get(sizes, (size_t)i), preset, maker->reader->vision.P);
    }
    ReaderBatch batch = reader_batch_new();
    chat_add_prompt(maker, &batch, &chat, images);
    const int T = (int)json_array_size(want);
    EXPECT(batch.N == T && T > 0, "%d tokens, not %d", batch.N, T);
    expect_list("token", batch.ids, T < batch.N ? T : batch.N, want);
    EXPECT(batch.R == 1 && batch.wanted[0] == T - 1, "%d rows", batch.R);
    reader_batch_free(&batch);
    chat_free(&chat);
}

static void expect_family(PromptForm form, const json_t *vectors, const char *folder) {
    const bool is_qwen = form == PROMPT_QWEN2VL;
    const char *const name = is_qwen ? "qwen2vl" : "pixtral";
    Tokenizer *tokenizer;
    error_die(folder, tokenizer_open_new(&tokenizer, folder));
    ReaderConfig reader;
    CHECK(reader_preset(&reader, is_qwen ? "qwen2-vl-7b" : "pixtral-12b"), "no preset");
    const json_t *v;
    size_t i;
    json_array_foreach(json_object_get(vectors, "cases"), i, v) {
        if (!CASE("%s %zu", name, i)) {
            continue;
        }
        PromptMaker maker = prompt_maker_new(form, tokenizer, &reader, 4096);
        maker.instruction = text_of(v, "instruction");
        const PromptInput input = {
            .passage_image = image_of(json_object_get(v, "passage"), name, reader.vision.P),
            .query_image = image_of(json_object_get(v, "query"), name, reader.vision.P),
            .caption = text_of(v, "caption"),
            .question = text_of(v, "question")};
        const char *const answer = text_of(v, "answer");
        int32_t target[64];
        int count = tokenizer_encode(tokenizer, answer, strlen(answer), target, 63);
        target[count++] = maker.answer_end;
        ReaderBatch batch = reader_batch_new();
        prompt_add(&maker, &batch, &input, target, count);
        expect_prompt(&maker, &batch, target, count,
                      json_array_get(json_object_get(vectors, name), i));
        reader_batch_free(&batch);
    }
    json_array_foreach(json_object_get(vectors, "chats"), i, v) {
        if (CASE("%s chat %zu", name, i)) {
            const PromptMaker maker = prompt_maker_new(form, tokenizer, &reader, 4096);
            const char *const key = is_qwen ? "chats_qwen2vl" : "chats_pixtral";
            expect_chat(&maker, v, json_array_get(json_object_get(vectors, "sizes"), i), name,
                        json_array_get(json_object_get(vectors, key), i));
        }
    }
    tokenizer_free(tokenizer);
}

TEST(prompt_reference) {
    json_error_t error;
    json_t *vectors = json_load_file(check_fixture("vectors_prompts.json"), 0, &error);
    CHECK(vectors, "vectors_prompts.json: %s", error.text);
    char *qwen = xformat_new("%s/qwen", check_tmpdir());
    char *pixtral = xformat_new("%s/pixtral", check_tmpdir());
    error_die(qwen, file_make_directories(qwen));
    error_die(pixtral, file_make_directories(pixtral));
    if (qwen2vl_folder(qwen)) {
        expect_family(PROMPT_QWEN2VL, vectors, qwen);
    }
    if (pixtral_folder(pixtral)) {
        expect_family(PROMPT_PIXTRAL, vectors, pixtral);
    }
    free(qwen);
    free(pixtral);
    json_decref(vectors);
}
