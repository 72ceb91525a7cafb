// program: see program.h.
#define _POSIX_C_SOURCE 200809L
#include "program.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/png.h"

// ---- running ----
static int run_in_world(char **output, const char *prefix, const char *program,
                        const char *arguments, va_list args) {
    char text[2048];
    CHECK(vsnprintf(text, sizeof text, arguments, args) < (int)sizeof text, "arguments too long");
    // Threads that wait must not spin: the machine has other work.
    return check_run(output, "cd '%s' && OMP_WAIT_POLICY=passive %s '%s' %s", world_dir(), prefix,
                     program, text);
}

int program_run(char **output, const char *arguments, ...) {
    va_list args;
    va_start(args, arguments);
    const int code = run_in_world(output, "", check_program(), arguments, args);
    va_end(args);
    return code;
}

int program_run_under(char **output, const char *prefix, const char *arguments, ...) {
    va_list args;
    va_start(args, arguments);
    const int code = run_in_world(output, prefix, check_program(), arguments, args);
    va_end(args);
    return code;
}

int program_run_on_device(char **output, const char *arguments, ...) {
    char *with_device = xformat_new("%s device=cuda", arguments);
    va_list args;
    va_start(args, arguments);
    const int code = run_in_world(output, "", check_device_program(), with_device, args);
    va_end(args);
    free(with_device);
    return code;
}

void program_must_run(const char *arguments, ...) {
    char *output;
    va_list args;
    va_start(args, arguments);
    const int code = run_in_world(&output, "", check_program(), arguments, args);
    va_end(args);
    EXPECT(code == EXIT_OK, "'%s' ended with %d: %s", arguments, code, output);
    free(output);
}

// ---- the world ----
const char *world_dir(void) {
    static char path[128];
    snprintf(path, sizeof path, "%s/world", check_tmpdir());
    return path;
}

void world_write(const char *name, const void *data, size_t size) {
    char *path = file_join_new(world_dir(), name);
    error_die(path, file_replace(path, data, size));
    free(path);
}

// A grey disc on noise; its brightness tells the class.
static void write_picture(const char *name, int number, int label) {
    Rng rng = check_rng((uint32_t)number);
    Image image = image_new(20 + number % 5, 18 + number % 3, 3);
    for (int y = 0; y < image.height; y++) {
        for (int x = 0; x < image.width; x++) {
            const bool is_inside = (x - 10) * (x - 10) + (y - 9) * (y - 9) < 30;
            for (int c = 0; c < 3; c++) {
                const int base = is_inside ? 80 + 120 * label : 40;
                image.data[(y * image.width + x) * 3 + c] =
                    (uint8_t)(base + (int)rng_below(&rng, 32));
            }
        }
    }
    size_t size;
    uint8_t *bytes = png_encode_new(&image, &size);
    world_write(name, bytes, size);
    free(bytes);
    image_free(&image);
}

static const char config_text[] =
    "classes: [no, yes]\n"
    "threads: 1\n"
    "data: {corpus: corpus.jsonl, task: task.jsonl}\n"
    "index: {dir: index}\n"
    "run: {deterministic: true}\n"
    "prompt: {max_tokens: 256}\n"
    "pretrain: {steps: 6, batch: 4, warmup: 1}\n"
    "retriever: {max_tokens: 32, k: 4, batch: 2, refresh: 3, steps: 6, warmup: 1, lr: 0.01}\n"
    "reader: {steps: 6, batch: 2, warmup: 1, lr: 0.01}\n";

static void write_world(int corpus_rows, int queries) {
    char *corpus = xstrdup(""), *task = xstrdup(""), name[64];
    char *directory = file_join_new(world_dir(), "images");
    error_die(directory, file_make_directories(directory));
    free(directory);
    for (int i = 0; i < corpus_rows; i++) {
        snprintf(name, sizeof name, "images/c%d.png", i);
        write_picture(name, i, i % 2);
        char *longer = xformat_new("%s{\"id\": \"c%d\", \"img_path\": \"%s\", "
                                   "\"text\": \"a disc, %s, case %d\"}\n",
                                   corpus, i, name, i % 2 ? "bright" : "dark", i);
        free(corpus);
        corpus = longer;
    }
    for (int i = 0; i < queries; i++) {
        snprintf(name, sizeof name, "images/q%d.png", i);
        write_picture(name, 1000 + i, i % 2);
        char *longer =
            xformat_new("%s{\"id\": \"q%d\", \"image_path\": \"%s\", \"question\": "
                        "\"is it bright ?\", \"answer\": \"%s\", \"split\": \"%s\"}\n",
                        task, i, name, i % 2 ? "yes" : "no", i < WORLD_TRAIN ? "train" : "test");
        free(task);
        task = longer;
    }
    world_write("corpus.jsonl", corpus, strlen(corpus));
    world_write("task.jsonl", task, strlen(task));
    world_write("c.yaml", config_text, sizeof config_text - 1);
    free(corpus);
    free(task);
}

// The world is made once, in `original`; a case works on a copy.
static const char *fresh_copy(bool with_index) {
    char *made = file_join_new(check_tmpdir(), "original");
    const bool is_made = file_exists(made);
    free(made);
    const char *const parts = with_index ? "" : "&& rm -rf towers index";
    if (!is_made) {
        check_run(NULL, "rm -rf '%s'", world_dir());
        write_world(WORLD_PASSAGES, WORLD_TRAIN + WORLD_TEST);
        program_must_run("pretrain c.yaml run.dir=towers");
        program_must_run("index build c.yaml " TOWERS);
        check_run(NULL, "cd '%s' && mv world original", check_tmpdir());
    }
    const int code =
        check_run(NULL, "cd '%s' && rm -rf world && cp -r original world && cd world %s",
                  check_tmpdir(), parts);
    CHECK(code == 0, "copying the world: code %d", code);
    return world_dir();
}

const char *world(void) { return fresh_copy(false); }
const char *world_with_index(void) { return fresh_copy(true); }

// ---- files ----
bool world_has(const char *name) {
    char *path = file_join_new(world_dir(), name);
    const bool is_there = file_exists(path);
    free(path);
    return is_there;
}

char *world_text_new(const char *name) {
    char *path = file_join_new(world_dir(), name), *text = NULL;
    FileBytes bytes = {0};
    const Error error = file_read_new(&bytes, path, (size_t)1 << 30);
    EXPECT(error.code == EXIT_OK, "%s: %s", name, error.text);
    if (error.code == EXIT_OK) {
        text = xformat_new("%s", (const char *)bytes.data);
        file_bytes_free(&bytes);
    }
    free(path);
    return text;
}

void expect_same_file(const char *a, const char *b) {
    char *paths[2] = {file_join_new(world_dir(), a), file_join_new(world_dir(), b)};
    FileBytes bytes[2] = {{0}, {0}};
    bool are_there = true;
    for (int i = 0; i < 2; i++) {
        const Error error = file_read_new(&bytes[i], paths[i], (size_t)1 << 30);
        EXPECT(error.code == EXIT_OK && bytes[i].size > 0, "%s: %s", paths[i],
               error.code ? error.text : "empty");
        are_there = are_there && error.code == EXIT_OK;
    }
    if (are_there) {
        size_t at = 0;
        while (at < bytes[0].size && at < bytes[1].size && bytes[0].data[at] == bytes[1].data[at]) {
            at++;
        }
        EXPECT(at == bytes[0].size && at == bytes[1].size,
               "%s (%zu bytes) and %s (%zu) differ at byte %zu", a, bytes[0].size, b, bytes[1].size,
               at);
    }
    for (int i = 0; i < 2; i++) {
        file_bytes_free(&bytes[i]);
        free(paths[i]);
    }
}

static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

void expect_close_text(const char *what, const char *a, const char *b, double bound) {
    static const char first[] = "-0123456789";
    for (const char *const start = a; *a && *b;) {
        const bool begins =
            strchr(first, *a) && strchr(first, *b) && (a == start || !is_word(a[-1]));
        char *a_end = NULL, *b_end = NULL;
        const double x = begins ? strtod(a, &a_end) : 0, y = begins ? strtod(b, &b_end) : 0;
        if (begins && a_end > a && b_end > b) {
            EXPECT(fabs(x - y) <= bound * fmax(1, fabs(y)), "%s: %.9g, want %.9g: %.60s", what, x,
                   y, a);
            a = a_end;
            b = b_end;
        } else if (*a++ != *b++) {
            break;
        }
    }
    EXPECT(!*a && !*b, "%s: '%.60s', want '%.60s'", what, a, b);
}

void expect_run(const char *run, const char *word, int steps) {
    char *name = xformat_new("%s/STATUS", run), *losses = xformat_new("%s/losses.jsonl", run);
    char *status = world_text_new(name), *text = world_text_new(losses);
    EXPECT(status && strncmp(status, word, strlen(word)) == 0 && status[strlen(word)] == ' ',
           "%s: '%s', want %s", name, status ? status : "", word);
    int count = 0;
    for (char *rest = NULL, *line = text ? strtok_r(text, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest)) {
        json_t *row = json_loads(line, 0, NULL);
        const json_t *loss = json_object_get(row, "loss");
        count++;
        EXPECT(json_is_number(loss) && isfinite(json_number_value(loss)), "%s: %s", losses, line);
        EXPECT(json_integer_value(json_object_get(row, "current_steps")) == count, "%s: %s", losses,
               line);
        json_decref(row);
    }
    EXPECT(count == steps, "%s: %d lines, want %d", losses, count, steps);
    free(name);
    free(losses);
    free(status);
    free(text);
}

void expect_error_line(const char *output, const char *const *wants, int count) {
    int lines = 0;
    for (const char *line = output; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, "error: ", 7) != 0) {
            continue;
        }
        char *copy = xformat_new("%.*s", (int)strcspn(line, "\n"), line);
        for (int i = 0; i < count && wants[i]; i++) {
            EXPECT(strstr(copy, wants[i]), "no '%s' in: %s", wants[i], copy);
        }
        free(copy);
        lines++;
    }
    EXPECT(lines == 1, "%d lines start with 'error:': %s", lines, output);
}
