// Tests of the benches: the real shapes, shrunk, on the CPU and on the emulated GPU; what the rows
// hold; settings that are wrong; and the table of bars that is made of a GPU's record.
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
    EXPECT(strcmp(backend, "emu") == 0 && number(row, "copies") == 32, "%s", line);
    EXPECT(number(row, "batch") >= 1 && number(row, "memory") > 0, "%s", line);
    EXPECT(number(row, "peak_share") > 0, "set against no ceiling: %s", line);
    EXPECT(number(row, "error") > 0 && number(row, "error") < 0x1p-7, "error: %s", line);
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
            const int code =
                check_run(&output, "%s %s", bench_program("bench"), wrong[i].arguments);
            EXPECT(code == wrong[i].code && strstr(output, wrong[i].want), "code %d: %s", code,
                   output);
            free(output);
        }
    }
}

// ---- bars ----
#define GENERATOR "tools/bench_bars.sh"
#define GPU "\"backend\":\"cuda\",\"machine\":\"gpu 0, NVIDIA H200, 140 GiB\""

typedef struct {
    const char *bench, *shape;
    double us, bytes; // of ours
    const char *peer;
    double peer_us;
    int bars; // that miss when it is slower
} Row;

// A record in which every bar is just reached: copies run at 4 TB/s.
static const Row reached[] = {
    {"ceiling", "copy 4096 MiB", 2000, 8e9, NULL, 0, 2},
    {"attention_fwd", "ViT B=256 T=197 H=12 Hkv=12 D=64 bf16", 100, 1, "SDPA cuDNN", 100, 1},
    {"attention_fwd", "ViT B=256 T=256 H=12 Hkv=12 D=64 bf16", 100, 1, "cuDNN", 101, 1},
    {"attention_bwd", "ViT B=256 T=197 H=12 Hkv=12 D=64 bf16", 100, 1, "SDPA cuDNN", 100, 1},
    {"attention_bwd", "ViT B=256 T=256 H=12 Hkv=12 D=64 bf16", 100, 1, "SDPA cuDNN", 100, 1},
    {"layernorm_fwd", "N=50432 C=768 bf16", 10, 3.4e7, NULL, 0, 1},
    {"layernorm_bwd", "N=50432 C=768 bf16", 10, 3.9e7, NULL, 0, 1},
    {"rmsnorm_fwd", "N=35000 C=3584 bf16", 10, 3.5e7, NULL, 0, 1},
    {"rmsnorm_bwd", "N=35000 C=3584 bf16", 10, 3.6e7, NULL, 0, 1},
    {"adamw", "n=86567656 bf16", 10, 3.4e7, NULL, 0, 1},
    {"adamw", "n=137368320 bf16", 10, 3.7e7, NULL, 0, 1},
    {"topk", "Q=256 M=1600000 E=768 K=50 f16", 1100, 1, "matmul+topk", 1980, 2},
    {"vit_b16", "B=256 fwd bf16", 16000, 0, "timm compiled", 17600, 2},
    {"vit_b16", "B=256 fwd+bwd bf16", 50000, 0, NULL, 0, 1},
    {"qwen2vl_7b_score", "prompts=100 T=350 bf16", 1e6, 0, "transformers", 1.5e6, 2},
    {"qwen2vl_7b_lora", "prompts=3 T=350 rank=8 bf16", 60000, 0, "PEFT", 90000, 3},
    {"qwen2vl_7b_lora", "prompts=3 T=350 rank=8 bf16", 60000, 0, "PEFT best", 66000, 3}};
enum { ROWS = sizeof reached / sizeof *reached, BARS = 15 };

static void write_row(FILE *file, const Row *row, double us) {
    fprintf(file,
            "{\"round\":1,\"bench\":\"%s\",\"shape\":\"%s\",\"median_us\":%.3f,\"bytes\":%.0f," GPU
            "}\n",
            row->bench, row->shape, us, row->bytes);
    if (row->peer) {
        fprintf(file,
                "{\"round\":1,\"side\":\"peer\",\"bench\":\"%s\",\"shape\":\"%s\","
                "\"peer\":\"%s\",\"median_us\":%.3f}\n",
                row->bench, row->shape, row->peer, row->peer_us);
    }
}

// The 48 products of the bar, in 90 us beside the library's 81, which stands in the same row.
static void write_products(FILE *file, int count) {
    static const char *const pass[] = {"fwd", "bwd_input", "bwd_weight"};
    for (int i = 0; i < count; i++) {
        fprintf(file,
                "{\"round\":1,\"bench\":\"matmul_%s\",\"shape\":\"ViT M=50432 N=768 K=%d bf16\","
                "\"median_us\":90,\"bytes\":1,\"peer\":\"cuBLASLt\",\"peer_median_us\":81,"
                GPU "}\n",
                pass[i % 3], i);
    }
}

static FILE *record_open(const char *name) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", check_tmpdir(), name);
    FILE *file = fopen(path, "w");
    CHECK(file, "%s", path);
    return file;
}

// The page that the generator writes of the records in the test's directory.
static char *page_new(void) {
    char *output, *page = NULL;
    const int code = check_run(&output, GENERATOR " %s/README.md %s && cat %s/README.md",
                               check_tmpdir(), check_tmpdir(), check_tmpdir());
    EXPECT(code == 0, "code %d: %s", code, output);
    page = output;
    return page;
}

static int count_of(const char *page, const char *word) {
    int count = 0;
    for (const char *at = page; (at = strstr(at, word)); at += strlen(word)) {
        count++;
    }
    return count;
}

static void expect_counts(int met, int missed, int unmeasured) {
    char *page = page_new();
    EXPECT(count_of(page, "| reached |") == met &&
               count_of(page, "| **not reached** |") == missed &&
               count_of(page, "| not measured |") == unmeasured,
           "want %d reached, %d not, %d not measured:\n%s", met, missed, unmeasured, page);
    free(page);
}

TEST(bench_bars) {
    if (access(GENERATOR, X_OK) != 0) {
        check_skip("no source tree here");
        return;
    }
    if (CASE("no record")) {
        expect_counts(0, 0, BARS);
    }
    if (CASE("all reached, and an older record does not count")) {
        FILE *file = record_open("h200-2026-01-02-abc.json"), *old;
        write_products(file, 48);
        for (int i = 0; i < ROWS; i++) {
            write_row(file, &reached[i], reached[i].us);
        }
        fclose(file);
        old = record_open("zzz-2026-01-01-def.json");
        write_row(old, &reached[12], 1e9);
        fclose(old);
        expect_counts(BARS, 0, 0);
        char *page = page_new();
        EXPECT(strstr(page, "a copy of 4.00 TB/s") && strstr(page, "h200-2026-01-02-abc.json"),
               "%s", page);
        free(page);
    }
    for (int slow = 0; slow < ROWS; slow++) {
        // A second round in which one row is slower (the copy: faster), and a peer that is not.
        if (CASE("slower: %s %s", reached[slow].bench, reached[slow].shape)) {
            const bool is_copy = strcmp(reached[slow].bench, "ceiling") == 0;
            FILE *file = record_open("h200-2026-01-02-abc.json");
            write_products(file, 48);
            for (int i = 0; i < ROWS; i++) {
                write_row(file, &reached[i], reached[i].us);
            }
            Row again = reached[slow];
            again.peer_us *= 2;
            write_row(file, &again, again.us * (is_copy ? 0.9 : 1.2));
            fclose(file);
            expect_counts(BARS - reached[slow].bars, reached[slow].bars, 0);
        }
    }
    if (CASE("rows that are not there, not numbers, or not a GPU's")) {
        FILE *file = record_open("h200-2026-01-02-abc.json");
        write_products(file, 47);
        for (int i = 0; i < ROWS; i++) {
            if (i < 12) {
                write_row(file, &reached[i], i == 1 ? NAN : reached[i].us);
            }
        }
        fprintf(file, "{\"bench\":\"vit_b16\",\"shape\":\"B=256 fwd bf16\",\"median_us\":1}\n");
        fclose(file);
        // Left: backward, norms, AdamW and the two of the search.
        expect_counts(5, 0, BARS - 5);
    }
}

// Peers that could not run are listed with why, those of another round with a time are not.
TEST(bench_bars_peers) {
    if (access(GENERATOR, X_OK) != 0) {
        check_skip("no source tree here");
        return;
    }
    const Row *search = &reached[11];
    FILE *file = record_open("h200-2026-01-02-abc.json");
    fprintf(file, "{\"origin\":\"then, there\"}\n{\"round\":1,\"versions\":\"torch 9\"}\n");
    write_row(file, search, search->us);
    for (int i = 0; i < 2; i++) {
        fprintf(file,
                "{\"round\":%d,\"side\":\"peer\",\"bench\":\"topk\",\"shape\":\"%s\","
                "\"peer\":\"%s\",\"failed\":\"OutOfMemoryError: 9 GB\"}\n",
                i + 1, search->shape, i ? "faiss" : search->peer);
    }
    fprintf(file,
            "{\"round\":1,\"side\":\"peer\",\"bench\":\"topk\",\"shape\":\"%s\",\"peer\":"
            "\"quick\",\"median_us\":50,\"launch_us\":49}\n",
            search->shape);
    fclose(file);
    expect_counts(2, 0, BARS - 2);
    char *page = page_new(), want[200];
    snprintf(want, sizeof want, "\n- topk %s, faiss: OutOfMemoryError: 9 GB\n", search->shape);
    EXPECT(strstr(page, want) && count_of(page, "OutOfMemoryError") == 1 &&
               strstr(page, "cuBLASLt 8192^3 in bf16 not measured.\n\n| bench |") &&
               strstr(page, "| quick (bound by launches) | 50.0 (50.0) |") &&
               strstr(page, "Peers: torch 9.") && strstr(page, "First rows: then, there."),
           "%s", page);
    free(page);
}

// ---- the driver ----
#define DRIVER "tools/bench_gpu.sh"

TEST(bench_driver) {
    if (access(DRIVER, X_OK) != 0) {
        check_skip("no source tree here");
        return;
    }
    const char *bin = bench_program("");
    char *output;
    if (CASE("two rounds into one record")) {
        int code = check_run(&output,
                             "BUILD=%s/.. " DRIVER " backend=cpu shrink=16384 only=adamw peers=no "
                             "seconds=0.002 warm=0 out=%s && cat %s/cpu-20*.json",
                             bin, check_tmpdir(), check_tmpdir());
        EXPECT(code == 0, "code %d: %s", code, output);
        // The copy in two rounds, then two sizes in two rounds, each round under its origin.
        EXPECT(count_of(output, "{\"origin\":") == 4, "%s", output);
        EXPECT(count_of(output, "{\"round\":1,\"bench\":\"adamw\"") == 2 &&
                   count_of(output, "{\"round\":2,\"bench\":\"adamw\"") == 2 &&
                   count_of(output, "\"bench\":\"ceiling\"") == 2,
               "%s", output);
        free(output);
    }
    if (CASE("no GPU")) {
        char why[200];
        if (device_is_there(DEVICE_CUDA, 0, why, sizeof why)) {
            check_skip("there is one");
        } else {
            const int code = check_run(&output, "BUILD=%s/.. " DRIVER " peers=no out=%s", bin,
                                       check_tmpdir());
            EXPECT(code == EXIT_NO_DEPENDENCY, "code %d: %s", code, output);
            free(output);
        }
    }
    if (CASE("groups")) {
        int code = check_run(&output, DRIVER " list");
        EXPECT(code == 0 && count_of(output, "matmul_") == 3 && strstr(output, "qwen2vl_7b_lora\n"),
               "code %d: %s", code, output);
        free(output);
        code = check_run(&output, DRIVER " only=what");
        EXPECT(code == EXIT_SYNTAX && strstr(output, "only=what: no group"), "code %d: %s", code,
               output);
        free(output);
    }
    if (CASE("setting that is none")) {
        const int code = check_run(&output, DRIVER " round=1");
        EXPECT(code == EXIT_SYNTAX && strstr(output, "round=1: not a setting"), "code %d: %s", code,
               output);
        free(output);
    }
}

// What was emulated counts only once it says that it was not, and even then its sizes reach no bar.
TEST(bench_driver_emulated) {
    if (access(bench_program("bench-emu"), X_OK) != 0 || access(DRIVER, X_OK) != 0) {
        check_skip("no emulator in this build, or no source tree");
        return;
    }
    char *output;
    const char *bin = bench_program("");
    const int code = check_run(
        &output,
        "BUILD=%s/.. " DRIVER " backend=emu shrink=16384 only=norm peers=no rounds=1 "
        "seconds=0.002 warm=0 out=%s && " GENERATOR " %s/page.md %s && cat %s/page.md && "
        "sed -i 's/\"emu\"/\"cuda\"/' %s/emu-20*.json && " GENERATOR " %s/page.md %s && "
        "cat %s/page.md",
        bin, check_tmpdir(), check_tmpdir(), check_tmpdir(), check_tmpdir(), check_tmpdir(),
        check_tmpdir(), check_tmpdir(), check_tmpdir());
    EXPECT(code == 0, "code %d: %s", code, output);
    EXPECT(count_of(output, "| layernorm_fwd | N=3 C=768 bf16 |") == 1 &&
               count_of(output, "| rmsnorm_bwd | N=2 C=3584 bf16 |") == 1 &&
               count_of(output, "Record: `emu-") == 2 &&
               count_of(output, "| norms: 85 % of the copy | not measured |") == 2,
           "%s", output);
    free(output);
}
