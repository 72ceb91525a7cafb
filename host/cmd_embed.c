// cmd_embed: jomed embed: texts and pictures to rows of numbers, for other programs. Writes
// embed.dir/texts.npy and images.npy, (n,E) f32 in the order of the input, and with embed.faiss the
// same rows as faiss's IndexFlatIP. Leaves out streaming: all rows of one kind are in memory.
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faiss.h"
#include "file.h"
#include "jsonl.h"
#include "npy.h"
#include "system.h"
#include "text_lines.h"
#include "verbs.h"

#define BLOCK 1024 // rows between two progress lines

// ---- texts ----
typedef struct {
    char **items;
    int count, room;
} Texts;

static void add_text(Texts *texts, const char *text, size_t size) {
    if (texts->count == texts->room) {
        texts->room = texts->room ? 2 * texts->room : 1024;
        texts->items = xrealloc(texts->items, (size_t)texts->room, sizeof *texts->items);
    }
    char *copy = xmalloc(size + 1, 1);
    memcpy(copy, text, size);
    copy[size] = '\0';
    texts->items[texts->count++] = copy;
}

static void texts_free(Texts *texts) {
    for (int i = 0; i < texts->count; i++) {
        free(texts->items[i]);
    }
    free(texts->items);
}

// Objects with a member "text", one per line.
static Error read_objects(Texts *texts, const Config *config, const FileBytes *bytes) {
    Jsonl reader;
    jsonl_begin(&reader, config->embed.texts, bytes->data, bytes->size);
    reader.max_bad_lines = config->data.max_bad_lines;
    reader.is_utf8_strict = config->data.non_utf8 == KEY_NON_UTF8_FAIL;
    json_t *row;
    Error error;
    while (!(error = jsonl_next(&reader, &row)).code && row) {
        const char *text = NULL;
        error = json_member_text(row, "text", true, &text);
        error.offset = reader.line;
        if (!error.code) {
            add_text(texts, text, strlen(text));
        }
        json_decref(row);
        if (error.code) {
            break;
        }
    }
    jsonl_end(&reader);
    return error;
}

// One text per line; an empty line is an empty text, so that row numbers are line numbers.
static void read_lines(Texts *texts, const FileBytes *bytes) {
    TextLines lines = text_lines((const char *)bytes->data, bytes->size);
    const char *line;
    size_t size;
    while (text_lines_next(&lines, &line, &size)) {
        add_text(texts, line, size);
    }
}

static Texts read_texts(const Config *config) {
    const char *path = config->embed.texts;
    Texts texts = {0};
    FileBytes bytes;
    error_die(path, file_map_new(&bytes, path));
    const bool is_jsonl = bytes.size && bytes.data[0] == '{';
    if (is_jsonl) {
        error_die(path, read_objects(&texts, config, &bytes));
    } else {
        read_lines(&texts, &bytes);
    }
    file_bytes_free(&bytes);
    if (texts.count == 0) {
        die(EXIT_BAD_DATA, "%s: no texts", path);
    }
    LOG(INFO, "embed: %s: %d texts, %s", path, texts.count,
        is_jsonl ? "JSON objects" : "one per line");
    return texts;
}

// ---- rows ----
static void write_rows(const Config *config, const char *kind, const float *rows, int n, int E) {
    char *name = xformat_new("%s.npy", kind), *path = file_join_new(config->embed.dir, name);
    const size_t shape[] = {(size_t)n, (size_t)E};
    error_die(path, npy_write(path, NPY_F4, 2, shape, rows));
    LOG(INFO, "embed: %s: %d rows of %d", path, n, E);
    free(name);
    free(path);
    if (config->embed.faiss) {
        name = xformat_new("%s.faiss", kind);
        path = file_join_new(config->embed.dir, name);
        FaissWriter writer;
        error_die(path, faiss_writer_open(&writer, path, E, (size_t)n, false));
        faiss_writer_add(&writer, rows, (size_t)n);
        error_die(path, faiss_writer_commit(&writer, NULL));
        free(name);
        free(path);
    }
}

// After the block that begins at row first; on a terminal alone.
static void say_progress(const char *kind, int first, int n) {
    if (isatty(STDERR_FILENO)) {
        log_live("embed: %d of %d %s", n - first < BLOCK ? n : first + BLOCK, n, kind);
    }
}

static void embed_all_texts(System *system) {
    const Config *config = system->config;
    Texts texts = read_texts(config);
    TextTower *tower = &system->retriever->text;
    const int n = texts.count, E = tower->config.E;
    float *rows = xmalloc((size_t)n * E, sizeof *rows);
    for (int first = 0; first < n; first += BLOCK) {
        (config->embed.unit ? encode_texts : encode_texts_raw)(
            rows + (size_t)first * E, system->dev, system->retriever->tensors.t, tower,
            system->tower_tokenizer, (const char *const *)texts.items + first,
            n - first < BLOCK ? n - first : BLOCK, system->max_tokens);
        say_progress("texts", first, n);
    }
    write_rows(config, "texts", rows, n, E);
    free(rows);
    texts_free(&texts);
}

static void embed_all_images(System *system) {
    const Config *config = system->config;
    Dataset *ds = system_corpus_new(config, config->embed.images);
    ImageTower *tower = &system->retriever->image;
    const int n = ds->n, E = tower->config.E;
    float *rows = xmalloc((size_t)n * E, sizeof *rows);
    int *numbers = xmalloc((size_t)n, sizeof *numbers);
    for (int i = 0; i < n; i++) {
        numbers[i] = i;
    }
    for (int first = 0; first < n; first += BLOCK) {
        (config->embed.unit ? encode_images : encode_images_raw)(
            rows + (size_t)first * E, system->dev, system->retriever->tensors.t, tower,
            &system->tower_processor, ds, numbers + first, n - first < BLOCK ? n - first : BLOCK);
        say_progress("pictures", first, n);
    }
    write_rows(config, "images", rows, n, E);
    free(numbers);
    free(rows);
    dataset_free(ds);
}

int cmd_embed(const Config *config) {
    const bool has_texts = config->embed.texts[0], has_images = config->embed.images[0];
    if (!has_texts && !has_images) {
        die(EXIT_CONFIG, "embed.texts: not set, and neither is embed.images; name what to embed");
    }
    if (!config->embed.dir[0]) {
        die(EXIT_CONFIG, "embed.dir: not set; name the directory for texts.npy and images.npy");
    }
    error_die(config->embed.dir, file_check_writable(config->embed.dir));
    System system = system_open_models(config);
    system_open_retriever(&system, has_images ? TOWERS_FROZEN : TOWERS_OF_TEXTS);
    if (has_texts) {
        embed_all_texts(&system);
    }
    if (has_images) {
        embed_all_images(&system);
    }
    system_close(&system);
    return EXIT_OK;
}
