// cmd_generate: jomed generate: the reader's answers in its own words, to one prompt or to a file
// of chats (host/chat.h), one JSON object per line, answered in their order. Leaves out tools, and
// a conversation that goes on after the answer.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chat.h"
#include "file.h"
#include "generate.h"
#include "jsonl.h"
#include "system.h"
#include "verbs.h"

// ---- how tokens are chosen ----
// As the folder says, then as the keys that are set.
static ChoiceConfig choice_of(const System *system) {
    const Config *config = system->config;
    ChoiceConfig choice = system_choice(system);
#define TAKE(field, name) \
    choice.field = config_is_set(config, "generate." #name) ? config->generate.name : choice.field
    TAKE(is_sampled, sample);
    TAKE(temperature, temperature);
    TAKE(top_k, top_k);
    TAKE(top_p, top_p);
    TAKE(penalty, repetition_penalty);
#undef TAKE
    return choice;
}

// ---- texts of answers ----
// Where the first stop text begins, or as much of the text as cannot be the beginning of one
// (is_open: more will follow). *is_stopped: a whole one is there.
static size_t text_end(const TextList *stops, const char *text, bool is_open, bool *is_stopped) {
    const size_t size = strlen(text);
    size_t end = size, first = size;
    *is_stopped = false;
    for (int i = 0; i < stops->count; i++) {
        const char *stop = stops->items[i], *at = strstr(text, stop);
        if (at) {
            *is_stopped = true;
            first = (size_t)(at - text) < first ? (size_t)(at - text) : first;
            continue;
        }
        const size_t length = strlen(stop);
        for (size_t k = length - 1 < size ? length - 1 : size; is_open && k > 0; k--) {
            if (strncmp(text + size - k, stop, k) == 0) {
                end = size - k < end ? size - k : end;
                break;
            }
        }
    }
    return *is_stopped ? first : end;
}

typedef struct {
    const System *system;
    bool is_streaming;
    size_t printed; // bytes, of the one answer that streams
    char **texts;   // (B) of the answers that are over
} Listener;

static bool listen(void *ctx, int sequence, const int32_t *ids, int count, bool is_over) {
    Listener *listener = ctx;
    const TextList *stops = &listener->system->config->generate.stop;
    if (!is_over && !listener->is_streaming && stops->count == 0) {
        return true; // nobody reads before the end
    }
    char *text = tokenizer_text_new(listener->system->tokenizer, ids, count,
                                    is_over ? DECODE_TEXT : DECODE_OPEN);
    bool is_stopped;
    const size_t end = text_end(stops, text, !is_over, &is_stopped);
    text[end] = '\0';
    if (listener->is_streaming && end > listener->printed) {
        fputs(text + listener->printed, stdout);
        fflush(stdout);
        listener->printed = end;
    }
    if (is_over || is_stopped) {
        listener->texts[sequence] = text;
    } else {
        free(text);
    }
    return !is_stopped;
}

// ---- chats ----
// Some chats, their names as JSON, and their pictures.
typedef struct {
    Chat *chats;
    char **ids;
    int count;
    Dataset *pictures;
    uint32_t first; // number of the first
} ChatBlock;

static ChatBlock block_new(const System *system, uint32_t first) {
    const size_t most = (size_t)system->config->generate.batch;
    return (ChatBlock){.chats = xcalloc(most, sizeof(Chat)), .ids = xcalloc(most, sizeof(char *)),
                   .pictures = system_set_new(system->config), .first = first};
}

static void block_free(ChatBlock *block) {
    for (int i = 0; i < block->count; i++) {
        chat_free(&block->chats[i]);
        free(block->ids[i]);
    }
    free(block->chats);
    free(block->ids);
    dataset_free(block->pictures);
}

static void add_pictures(ChatBlock *block, const Chat *chat, int line) {
    for (int m = 0; m < chat->count; m++) {
        for (int i = 0; i < chat->messages[m].count; i++) {
            const ChatPart *part = &chat->messages[m].parts[i];
            if (part->is_picture) {
                Record record = record_empty();
                record.path = part->text;
                record.line = line;
                dataset_add(block->pictures, &record);
            }
        }
    }
}

// The answers to a block, texts to be freed.
static Generated answer_new(System *system, const ChatBlock *block, Listener *listener) {
    const Config *config = system->config;
    const int images = block->pictures->n;
    ReaderImage *image = xcalloc((size_t)images + 1, sizeof *image);
    for (int i = 0; i < images; i++) {
        image[i] = reader_image_of_row(&system->reader_processor, &system->reader->config.vision,
                                       block->pictures, i);
    }
    ReaderBatch batch = reader_batch_new();
    for (int i = 0, seen = 0; i < block->count; seen += block->chats[i++].pictures) {
        chat_add_prompt(&system->prompts, &batch, &block->chats[i], image + seen);
    }
    const GenerateConfig generate = {.choice = choice_of(system), .pad = -1,
                                     .max_tokens = config->generate.max_tokens,
                                     .seed = (uint64_t)config->seed, .first = block->first};
    const double start = seconds_now();
    const Generated out = generate_new(system->reader, &batch, &generate, listen, listener);
    int tokens = 0;
    for (int i = 0; i < out.B; i++) {
        tokens += out.counts[i];
    }
    LOG(DEBUG, "generate: %d prompts of %d tokens, %d pictures: %d tokens in %.2f s, keys and "
        "values %.1f MiB", batch.B, batch.N, images, tokens, seconds_now() - start,
        (double)out.cache_bytes / (1 << 20));
    reader_batch_free(&batch);
    for (int i = 0; i < images; i++) {
        free((void *)(uintptr_t)image[i].pixels);
    }
    free(image);
    return out;
}

// ---- one prompt ----
static void answer_prompt(System *system) {
    const Config *config = system->config;
    ChatBlock block = block_new(system, 0);
    dataset_set_root(block.pictures, ".", true); // the user names these files
    Chat *chat = &block.chats[block.count++];
    if (config->generate.system[0]) {
        chat_begin_message(chat, CHAT_SYSTEM);
        chat_add_part(chat, false, config->generate.system);
    }
    chat_begin_message(chat, CHAT_USER);
    for (int i = 0; i < config->generate.image.count; i++) {
        chat_add_part(chat, true, config->generate.image.items[i]);
    }
    chat_add_part(chat, false, config->generate.prompt);
    add_pictures(&block, chat, 0);
    char *text = NULL;
    Listener listener = {.system = system, .is_streaming = isatty(STDOUT_FILENO), .texts = &text};
    Generated out = answer_new(system, &block, &listener);
    puts(text + listener.printed);
    free(text);
    generated_free(&out);
    block_free(&block);
}

// ---- a file of chats ----
static void write_answers(System *system, const ChatBlock *block, FILE *to) {
    char **texts = xcalloc((size_t)block->count, sizeof *texts);
    Listener listener = {.system = system, .texts = texts};
    Generated out = answer_new(system, block, &listener);
    for (int i = 0; i < block->count; i++) {
        char *quoted = json_quote_new(texts[i]);
        fprintf(to, "{\"id\": %s, \"text\": %s, \"tokens\": %d, \"ended\": %s}\n", block->ids[i],
                quoted, out.counts[i], out.is_over[i] ? "true" : "false");
        free(quoted);
        free(texts[i]);
    }
    free(texts);
    generated_free(&out);
}

// The member "id", else the number of the line, as JSON.
static char *id_new(const json_t *row, size_t line) {
    const json_t *id = json_object_get(row, "id");
    if (json_is_string(id)) {
        return json_quote_new(json_string_value(id));
    }
    return xformat_new("%lld", json_is_integer(id) ? (long long)json_integer_value(id)
                                                   : (long long)line);
}

// Takes chats until the block is full; false: the file is over.
static bool fill_block(ChatBlock *block, Jsonl *reader, int most) {
    while (block->count < most) {
        json_t *row;
        error_die(reader->name, jsonl_next(reader, &row));
        if (!row) {
            return false;
        }
        Chat *chat = &block->chats[block->count];
        Error error = chat_read_new(chat, row);
        error.offset = reader->line;
        error_die(reader->name, error);
        block->ids[block->count++] = id_new(row, reader->line);
        add_pictures(block, chat, (int)reader->line);
        json_decref(row);
    }
    return true;
}

static void answer_chats(System *system, FILE *to) {
    const Config *config = system->config;
    const char *path = config->generate.chats;
    FileBytes bytes;
    error_die(path, file_map_new(&bytes, path));
    Jsonl reader;
    jsonl_begin(&reader, path, bytes.data, bytes.size);
    reader.max_bad_lines = config->data.max_bad_lines;
    reader.is_utf8_strict = config->data.non_utf8 == KEY_NON_UTF8_FAIL;
    uint32_t done = 0;
    for (bool has_more = true; has_more;) {
        ChatBlock block = block_new(system, done);
        has_more = fill_block(&block, &reader, config->generate.batch);
        if (block.count > 0) {
            write_answers(system, &block, to);
            fflush(to);
            done += (uint32_t)block.count;
            LOG(DEBUG, "generate: %u chats answered", done);
        }
        block_free(&block);
    }
    if (done == 0) {
        die(EXIT_BAD_DATA, "%s: no chats", path);
    }
    jsonl_end(&reader);
    file_bytes_free(&bytes);
}

int cmd_generate(const Config *config) {
    const bool has_prompt = config->generate.prompt[0], has_chats = config->generate.chats[0];
    if (has_prompt == has_chats) {
        die(EXIT_CONFIG, has_prompt ? "generate.prompt: set beside generate.chats; leave one out"
                                    : "generate.prompt: not set, and neither is generate.chats; "
                                      "ask something");
    }
    if (has_chats && (config->generate.image.count || config->generate.system[0])) {
        die(EXIT_CONFIG, "generate.chats: chats bring their own pictures and system messages; "
            "leave generate.image and generate.system out");
    }
    for (int i = 0; i < config->generate.stop.count; i++) {
        if (!config->generate.stop.items[i][0]) {
            die(EXIT_CONFIG, "generate.stop: an empty text would stop every answer at once");
        }
    }
    System system = system_open_models(config);
    system_open_reader(&system, READER_FROZEN);
    if (has_chats) {
        answer_chats(&system, stdout);
    } else {
        answer_prompt(&system);
    }
    system_close(&system);
    return EXIT_OK;
}
