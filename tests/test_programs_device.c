// programs_device: every verb that computes, end to end on the device under test, held against the
// same command on the CPU. Named device=cuda, as a user would; in the emulator the test binary runs
// itself with the emulated device in the GPU's place, whose memory the host cannot read.
//
// Bounds. The first loss and the first gradient's norm come from the same weights by the same
// equations in another order of sums: 1e-5, a few hundred roundings of f32. AdamW divides by the
// root of the second moment, so that a gradient that is nothing but rounding moves its weight by a
// whole step: later losses agree to a hundredth. In bf16 a value may round to its neighbour, by
// 2^-8 of itself: a hundredth from the start, three later: the third norm of a gradient on the CPU
// is 1.2 % above that of f32, in the emulator 1.0 % below.
#define _POSIX_C_SOURCE 200809L // setenv
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/npy.h"
#include "program.h"

#define FIRST_BOUND 1e-5
#define LATER_BOUND 1e-2
#define SCORE_BOUND 1e-3 // f16 rows: half a unit in the last place of a score of one
#define SMALL "pretrain.batch=2 reader.batch=1 retriever.batch=1 retriever.k=2 retriever.refresh=1 "

// The CPU is what the others are compared with.
static bool skips_cpu(void) {
    if (device_kind(check_device()) == DEVICE_CPU) {
        check_skip("on the device: run with backend=emu or backend=cuda");
        return true;
    }
    return false;
}

// ---- running twice ----
// The same command on the device and on the CPU; what was printed on the device.
static char *run_both_new(const char *arguments, const char *gpu, const char *cpu) {
    char *output, *other;
    const int code = program_run_on_device(&output, "%s %s", arguments, gpu);
    EXPECT(code == EXIT_OK, "'%s' on the device ended with %d: %s", arguments, code, output);
    const int cpu_code = program_run(&other, "%s %s", arguments, cpu);
    EXPECT(cpu_code == EXIT_OK, "'%s' ended with %d: %s", arguments, cpu_code, other);
    free(other);
    return output;
}

// ---- training ----
// Runs gpu/ and cpu/: as many losses; the first close, the others near.
static void expect_close_losses(int steps, double first_bound, double later_bound) {
    expect_run("gpu", "done", steps);
    expect_run("cpu", "done", steps);
    char *got = world_text_new("gpu/losses.jsonl"), *want = world_text_new("cpu/losses.jsonl");
    char *got_rest = got ? strchr(got, '\n') : NULL, *want_rest = want ? strchr(want, '\n') : NULL;
    EXPECT(got_rest && want_rest, "no line of losses");
    if (got_rest && want_rest) {
        *got_rest++ = *want_rest++ = '\0';
        EXPECT(strstr(got, "\"grad_norm\""), "no norm in %s", got);
        expect_close_text("first step", got, want, first_bound);
        expect_close_text("later steps", got_rest, want_rest, later_bound);
    }
    free(got);
    free(want);
}

static void train(const char *verb, int steps, bool is_bf16) {
    check_time_limit(300);
    world_with_index();
    char *settings = xformat_new("%s pretrain.steps=%d reader.steps=%d retriever.steps=%d", verb,
                                 steps, steps, steps);
    char *output = run_both_new(settings, "run.dir=gpu", "run.dir=cpu");
    EXPECT(strstr(output, "device: gpu 0"), "%s", output);
    expect_close_losses(steps, is_bf16 ? LATER_BOUND : FIRST_BOUND,
                        is_bf16 ? 3 * LATER_BOUND : LATER_BOUND);
    free(settings);
    free(output);
}

TEST_BODY(programs_device_training, NOT_CPU) {
    if (skips_cpu()) {
        return;
    }
    const struct {
        const char *name, *verb;
        int steps;
        bool is_small; // a few seconds in the emulator
    } cases[] = {
        {"pretrain, one step", "pretrain c.yaml " SMALL, 1, true},
        {"pretrain", "pretrain c.yaml", 3, false},
        {"pretrain, bf16", "pretrain c.yaml retriever.dtype=bf16", 3, false},
        {"train-reader, one step", "train-reader c.yaml " TOWERS " " SMALL, 1, false},
        {"train-reader", "train-reader c.yaml " TOWERS, 3, false},
        {"train-reader, all weights, pixtral, recomputing, two passes",
         "train-reader c.yaml reader.all_weights=true reader.preset=tiny-pixtral "
         "reader.recompute=true reader.micro_batch=1 " TOWERS, 2, false},
        {"train-retriever, text", "train-retriever c.yaml " TOWERS, 3, false},
        {"train-retriever, image", "train-retriever c.yaml retriever.head=image " TOWERS, 2, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if ((cases[i].is_small || check_affords(1e9)) && CASE("%s", cases[i].name)) {
            train(cases[i].verb, cases[i].steps, strstr(cases[i].verb, "bf16") != NULL);
        }
    }
}

// ---- index, rows, answers ----
// The k-th best score of a list moves by no more than the scores do, whatever changes places: so
// scores are compared by rank, and not the rows that hold them.
static void expect_close_ranks(const char *got, const char *want) {
    const char *a = strstr(got, "query\tside"), *b = strstr(want, "query\tside");
    EXPECT(a && b, "%s", got);
    int lines = 0;
    for (; a && b && *a && *b; a += strcspn(a, "\n") + 1, b += strcspn(b, "\n") + 1) {
        char query[2][32], side[2][16];
        int rank[2], row;
        double score[2];
        const char *const line[2] = {a, b};
        for (int i = 0; i < 2; i++) {
            const int read = sscanf(line[i], "%31s %15s %d %d %lf", query[i], side[i], &rank[i],
                                    &row, &score[i]);
            EXPECT(read == 5 || lines == 0, "%.60s", line[i]);
        }
        if (lines++) {
            EXPECT(!strcmp(query[0], query[1]) && !strcmp(side[0], side[1]) && rank[0] == rank[1] &&
                       fabs(score[0] - score[1]) <= SCORE_BOUND,
                   "%.60s, want %.60s", a, b);
        }
    }
    EXPECT(lines == 1 + 2 * 2 * WORLD_TEST && *a == *b, "%d lines", lines);
}

static void search(void) {
    world_with_index();
    char *got, *want;
    program_run_on_device(&got, "index search c.yaml log.level=error " TOWERS);
    program_run(&want, "index search c.yaml log.level=error " TOWERS);
    expect_close_ranks(got, want);
    free(got);
    free(want);
}

static void build(void) {
    check_time_limit(300);
    world_with_index();
    char *got, *want;
    const int code = program_run_on_device(&got, "index build c.yaml index.dir=gpu " TOWERS);
    EXPECT(code == EXIT_OK, "%s", got);
    free(got);
    program_run(&got, "index search c.yaml log.level=error index.dir=gpu " TOWERS);
    program_run(&want, "index search c.yaml log.level=error " TOWERS);
    expect_close_ranks(got, want);
    free(got);
    free(want);
}

static void expect_close_rows(const char *a, const char *b, size_t rows) {
    const char *const names[2] = {a, b};
    FileBytes bytes[2];
    NpyArray array[2] = {{0}, {0}};
    for (int i = 0; i < 2; i++) {
        char *path = file_join_new(world_dir(), names[i]);
        error_die(path, file_read_new(&bytes[i], path, 1 << 24));
        error_die(path, npy_parse(&array[i], bytes[i].data, bytes[i].size));
        free(path);
    }
    EXPECT(array[0].rank == 2 && array[0].shape[0] == rows && array[1].shape[0] == rows &&
               array[0].shape[1] == array[1].shape[1], "%zu rows", array[0].shape[0]);
    const size_t count = rows * array[1].shape[1];
    for (size_t i = 0; i < count; i++) {
        const double x = npy_number(&array[0], i), y = npy_number(&array[1], i);
        if (!(fabs(x - y) <= FIRST_BOUND)) {
            EXPECT(false, "%s: number %zu is %.9g, want %.9g", a, i, x, y);
            break;
        }
    }
    for (int i = 0; i < 2; i++) {
        npy_free(&array[i]);
        file_bytes_free(&bytes[i]);
    }
}

static void embed(void) {
    world_with_index();
    static const char texts[] = "a lung\nan image of two words\n";
    world_write("lines.txt", texts, sizeof texts - 1);
    char *pictures = world_text_new("corpus.jsonl");
    for (char *end = pictures, lines = 0; end && (end = strchr(end, '\n')); end++) {
        if (++lines == 3) {
            end[1] = '\0';
        }
    }
    world_write("few.jsonl", pictures, strlen(pictures));
    free(pictures);
    free(run_both_new("embed c.yaml embed.texts=lines.txt embed.images=few.jsonl " TOWERS,
                      "embed.dir=gpu", "embed.dir=cpu"));
    expect_close_rows("gpu/texts.npy", "cpu/texts.npy", 2);
    expect_close_rows("gpu/images.npy", "cpu/images.npy", 3);
}

static void evaluate(void) {
    check_time_limit(600);
    world_with_index();
    free(run_both_new("evaluate c.yaml evaluate.oracle_at=[4] " TOWERS, "run.dir=gpu",
                      "run.dir=cpu"));
    // Every label's log-probability; of systems that search, with the scores of what they found.
    static const char *const systems[] = {"closed-book", "random-passages",
                                          "RAG--frozen-retriever"};
    for (int i = 0; i < 3; i++) {
        char *a = xformat_new("gpu/predictions/%s.jsonl", systems[i]),
             *b = xformat_new("cpu/predictions/%s.jsonl", systems[i]);
        char *got = world_text_new(a), *want = world_text_new(b);
        EXPECT(got && want && strstr(got, "\"logits\": ["), "%s", a);
        expect_close_text(a, got, want, 1e-4);
        free(a);
        free(b);
        free(got);
        free(want);
    }
}

// Greedy words are compared as text: the likeliest token leads by far more than rounding.
static void generate(void) {
    check_time_limit(300);
    world();
    char *got, *want;
    static const char arguments[] = "generate log.level=error generate.max_tokens=4 "
                                    "generate.image=[images/q0.png] 'generate.prompt=is it bright'";
    const int code = program_run_on_device(&got, "%s", arguments);
    program_run(&want, "%s", arguments);
    EXPECT(code == EXIT_OK && got[0] && strcmp(got, want) == 0, "'%s', want '%s'", got, want);
    free(got);
    free(want);
}

TEST_BODY(programs_device_verbs, NOT_CPU) {
    if (skips_cpu()) {
        return;
    }
    const struct {
        const char *name;
        void (*body)(void);
        bool is_small;
    } cases[] = {
        {"index search", search, true}, {"index build", build, false}, {"embed", embed, true},
        {"evaluate", evaluate, false},  {"generate", generate, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if ((cases[i].is_small || check_affords(1e9)) && CASE("%s", cases[i].name)) {
            cases[i].body();
        }
    }
}

// ---- the demo ----
// All stages, as few of everything as they take; twice, with the same bits. The second time the
// emulator's threads run in another order.
TEST_BODY(programs_device_demo, NOT_CPU) {
    if (skips_cpu()) {
        return;
    }
    if (!check_affords(1e9) || !CASE("twice")) {
        return;
    }
    check_time_limit(900);
    world();
    static const char arguments[] =
        "demo demo.seeds=[1] demo.corpus=256 demo.queries=16 pretrain.steps=1 pretrain.batch=2 "
        "demo.reader_steps=1 reader.steps=1 demo.refit_steps=1 retriever.steps=1 retriever.batch=1 "
        "retriever.k=2 run.dir=%s";
    for (int i = 0; i < 2; i++) {
        char *output;
        const int code = program_run_on_device(&output, arguments, i ? "b" : "a");
        CHECK(setenv("EMU_ORDER", "reverse", 1) == 0, "setenv");
        EXPECT(code == 1 && strstr(output, "device: gpu 0"), "%d: %s", code, output); // not learnt
        free(output);
    }
    expect_same_file("a/seed-1/losses.jsonl", "b/seed-1/losses.jsonl");
    expect_same_file("a/seed-1/results.json", "b/seed-1/results.json");
}

// ---- which device ----
TEST_BODY(programs_device_choice, NOT_CPU) {
    if (skips_cpu()) {
        return;
    }
    world_with_index();
    char *output;
    if (CASE("doctor names it")) {
        program_run_on_device(&output, "doctor");
        EXPECT(strstr(output, "ok  GPU") && strstr(output, "gpu 0, "), "%s", output);
        free(output);
    }
    if (CASE("kernels.arch=sm80: the older bodies")) {
        program_run_on_device(&output, "doctor kernels.arch=sm80");
        EXPECT(strstr(output, "; kernels of sm_80\n"), "%s", output);
        free(output);
    }
    if (CASE("device=auto takes it, and says why")) { // the last device on a command line wins
        check_run(&output, "cd '%s' && '%s' index search c.yaml device=auto " TOWERS, world_dir(),
                  check_device_program());
        EXPECT(strstr(output, "device=auto: gpu 0, ") && strstr(output, "; a GPU is there\n"), "%s",
               output);
        free(output);
    }
}

// ---- faults ----
// EMU_MEMORY: MiB of the emulated device; EMU_FAULT: the first call of the runtime to fail.
TEST_BODY(programs_device_faults, NOT_CPU) {
    if (device_kind(check_device()) != DEVICE_EMU) {
        check_skip("faults are the emulator's: run with backend=emu");
        return;
    }
    const struct {
        const char *name, *variables;
        int code;
        const char *wants[4]; // in the line of the error
        const char *log;
    } cases[] = {
        {"memory for a step", "EMU_MEMORY=8", EXIT_OK, {NULL}, "; 4.6 of 8.0 MiB are free\n"},
        {"no memory for a step", "EMU_MEMORY=4", EXIT_RESOURCE,
         {"for pretraining on gpu 0", "0.6 MiB free", "in use: optimiser 1.7 MiB",
          "lower pretrain.batch"}, " MiB to come for pretraining\n"},
        {"no memory for the weights", "EMU_MEMORY=1", EXIT_RESOURCE,
         {"for gradients", "in use: trainable parameters", "reader.lora_rank"}, ""},
        {"a kernel broke the context", "EMU_FAULT=cudaMemcpyAsync:300", EXIT_RESOURCE,
         {"kernels/device_cuda.cu:", "cudaMemcpyAsync(", "an illegal memory access"}, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%s", cases[i].name)) {
            char *output;
            world();
            const int code = check_run(&output, "cd '%s' && %s '%s' pretrain c.yaml device=cuda "
                                       "pretrain.steps=1 pretrain.batch=4 run.dir=r", world_dir(),
                                       cases[i].variables, check_device_program());
            EXPECT(code == cases[i].code && strstr(output, cases[i].log), "code %d: %s", code,
                   output);
            if (code != EXIT_OK) {
                expect_error_line(output, cases[i].wants, 4);
                char *status = world_text_new("r/STATUS");
                EXPECT(status && strncmp(status, "failed step=", 12) == 0, "%s", status);
                free(status);
            }
            free(output);
        }
    }
}

// EMU_ARCH: the architecture of the emulated device.
TEST_BODY(programs_device_too_old, NOT_CPU) {
    char *output;
    if (device_kind(check_device()) != DEVICE_EMU) {
        check_skip("an old card is the emulator's: run with backend=emu");
        return;
    }
    world_with_index();
    const char *const command = "cd '%s' && EMU_ARCH=sm75 '%s' index search c.yaml "
                                "device=%s " TOWERS;
    const int code = check_run(&output, command, world_dir(), check_device_program(), "cuda");
    EXPECT(code == EXIT_NO_DEPENDENCY, "code %d", code);
    expect_error_line(output, (const char *[]){"device: ", "is sm_75; the kernels want sm_80",
                                               "use device=cpu"}, 3);
    free(output);
    check_run(&output, command, world_dir(), check_device_program(), "auto");
    EXPECT(strstr(output, "device=auto: cpu, ") && strstr(output, "is sm_75"), "%s", output);
    free(output);
}

// Without a GPU device=cuda ends in one line, before anything is made; device=auto says why not.
TEST(programs_no_device) {
    char why[200], *output;
    world_with_index();
    check_run(&output, "'%s' doctor", check_program());
    const bool has_gpu = strstr(output, "ok  GPU");
    free(output);
    if (has_gpu) {
        check_skip("this machine has a GPU");
        return;
    }
    device_is_there(DEVICE_CUDA, 0, why, sizeof why);
    const int code = program_run(&output, "index search c.yaml device=cuda " TOWERS);
    EXPECT(code == EXIT_NO_DEPENDENCY, "code %d", code);
    expect_error_line(output, (const char *[]){"device: ", why, "use device=cpu"}, 3);
    free(output);
    program_run(&output, "index search c.yaml device=auto " TOWERS);
    char *line = xformat_new("; %s\n", why);
    EXPECT(strstr(output, "device=auto: cpu, ") && strstr(output, line), "%s", output);
    free(output);
    free(line);
}
