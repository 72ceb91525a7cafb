// Tests of the benches: the real shapes, shrunk, on the CPU and on the emulated GPU; what the rows
// hold; settings that are wrong.
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "host/file.h"
#include "host/json.h"

// ---- running it ----
// Path of a bench beside the test binary.
static const char *bench_program(const char *name) {
    static char path[4200];
    const char *jomed = check_program();
    snprintf(path, sizeof path, "%.*s%s", (int)(strrchr(jomed, '/') + 1 - jomed), jomed, name);
    return path;
}

static double number(const json_t *row, const char *name) {
    double value = NAN;
    const Error error = json_member_number(row, name, true, &value);
    EXPECT(error.code == EXIT_OK, "%s", error.text);
    return value;
}

// A row is whole: somebody can join it by bench and shape, and its times are in order.
static void check_row(const json_t *row, const char *line) {
    static const char *const texts[] = {"bench", "shape", "dtype", "machine", "commit"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *text = "";
        const Error error = json_member_text(row, texts[i], true, &text);
        EXPECT(error.code == EXIT_OK && text[0], "%s in %s", error.text, line);
    }
    const double low = number(row, "p5_us"), median = number(row, "median_us");
    const double high = number(row, "p95_us");
    EXPECT(low > 0 && low <= median && median <= high && isfinite(high), "times of %s", line);
    EXPECT(number(row, "samples") >= 5, "samples of %s", line);
    EXPECT(number(row, "flops") + number(row, "bytes") > 0, "work of %s", line);
}

// Runs a bench on shrunk shapes; calls see() with every row. Returns their number.
static int rows_of(const char *program, const char *arguments,
                   void (*see)(const json_t *row, const char *line)) {
    char path[300], *output = NULL, *line = NULL;
    size_t room = 0;
    snprintf(path, sizeof path, "%s/rows.json", check_tmpdir());
    const int code = check_run(&output, "%s %s seconds=0.005 warm=0 json=%s",
                               bench_program(program), arguments, path);
    EXPECT(code == 0, "code %d: %s", code, output);
    free(output);
    FILE *file = fopen(path, "r");
    EXPECT(file, "no rows of %s", arguments);
    int rows = 0;
    for (; file && getline(&line, &room, file) > 0; rows++) {
        json_t *row = NULL;
        const Error error = json_parse_new(&row, line, strlen(line));
        EXPECT(error.code == EXIT_OK, "%s: %s", error.text, line);
        check_row(row, line);
        see(row, line);
        json_decref(row);
    }
    if (file) {
        fclose(file);
    }
    free(line);
    return rows;
}

// ---- rows ----
static void see_cpu(const json_t *row, const char *line) {
    EXPECT(!json_object_get(row, "backend"), "%s", line);
}

TEST(bench_rows) {
    static const struct {
        const char *name;
        int rows, shrink;
    } benches[] = {{"matmul_fwd", 21, 4096},       {"matmul_bwd_input", 21, 4096},
                   {"matmul_bwd_weight", 8, 4096}, {"attention_fwd", 5, 4096},
                   {"attention_bwd", 5, 4096},     {"layernorm_fwd", 1, 4096},
                   {"layernorm_bwd", 1, 4096},     {"rmsnorm_fwd", 1, 4096},
                   {"rmsnorm_bwd", 1, 4096},       {"adamw", 2, 4096},
                   {"topk", 3, 4096},              {"vit_b16", 2, 256},
                   {"qwen2vl_7b_score", 1, 256},   {"qwen2vl_7b_lora", 1, 256}};
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        if (CASE("%s", benches[i].name)) {
            char arguments[100];
            snprintf(arguments, sizeof arguments, "%s shrink=%d threads=1", benches[i].name,
                     benches[i].shrink);
            const int rows = rows_of("bench", arguments, see_cpu);
            EXPECT(rows == benches[i].rows, "%d rows, want %d", rows, benches[i].rows);
        }
    }
}

// Small problems, so as many as there may be; one launch is longer than a batch has to be.
static void see_emulated(const json_t *row, const char *line) {
    const char *backend = "";
    json_member_text(row, "backend", false, &backend);
    EXPECT(strcmp(backend, "cuda") == 0 && number(row, "copies") == 32, "%s", line);
    EXPECT(number(row, "batch") >= 1 && number(row, "memory") > 0, "%s", line);
    EXPECT(number(row, "peak_share") > 0, "set against no ceiling: %s", line);
}

TEST(bench_gpu) {
    if (access(bench_program("bench-emu"), X_OK) != 0) {
        check_skip("no emulator in this build");
        return;
    }
    EXPECT(rows_of("bench-emu", "layernorm backend=emu shrink=16384", see_emulated) == 2,
           "forward and backward");
}

// ---- settings ----
TEST(bench_settings) {
    static const struct {
        const char *arguments, *want;
        int code;
    } wrong[] = {{"backend=gpu", "backend=gpu: not a backend", EXIT_SYNTAX},
                 {"dtype=f8", "dtype=f8: not a type", EXIT_SYNTAX},
                 {"second=1", "second=: not a setting", EXIT_SYNTAX},
                 {"json=/no/where/rows.json", "/no/where/rows.json: cannot write", EXIT_NO_OUTPUT}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (CASE("%s", wrong[i].arguments)) {
            char *output;
            const int code = check_run(&output, "%s %s", bench_program("bench"), wrong[i].arguments);
            EXPECT(code == wrong[i].code && strstr(output, wrong[i].want), "code %d: %s", code,
                   output);
            free(output);
        }
    }
}
