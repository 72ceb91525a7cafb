// resume: whatever ends a training, going on gives the same losses and the same weights, bit for
// bit.
//
// A process is killed, or refused disk space, at a chosen system call by strace (where ptrace is
// not allowed these cases are skipped and say so). The k-th call of a kind is the same call in
// every run: one thread writes, and what it writes depends on nothing but the configuration.
// Source: fault list of the reliability specification, rows 1 to 3, 18, 25.
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

enum { STEPS = 6 }; // of every stage, as the world's c.yaml says

typedef struct {
    const char *name, *arguments, *weights;
} StageCase;
static const StageCase stages[] = {
    {"pretrain", "pretrain c.yaml pretrain.learn_temperature=true", "retriever.safetensors"},
    {"pretrain, bf16", "pretrain c.yaml retriever.dtype=bf16", "retriever.safetensors"},
    {"train-reader, adapter", "train-reader c.yaml " TOWERS, "adapter/adapter_model.safetensors"},
    {"train-reader, all weights", "train-reader c.yaml reader.all_weights=true " TOWERS,
     "reader.safetensors"},
    {"train-reader, all weights, bf16",
     "train-reader c.yaml reader.all_weights=true reader.dtype=bf16 " TOWERS, "reader.safetensors"},
    {"train-retriever, text", "train-retriever c.yaml " TOWERS, "head.safetensors"},
    {"train-retriever, image", "train-retriever c.yaml retriever.head=image " TOWERS,
     "head.safetensors"},
    {"train-retriever, bf16",
     "train-retriever c.yaml index.dir=narrow retriever.dtype=bf16 " TOWERS, "head.safetensors"},
};
enum { STAGES = sizeof stages / sizeof *stages, READER_STAGE = 2, RETRIEVER_STAGE = 5 };

static void expect_same_run(const StageCase *stage, const char *run, const char *whole) {
    char names[4][128];
    snprintf(names[0], sizeof names[0], "%s/losses.jsonl", run);
    snprintf(names[1], sizeof names[1], "%s/losses.jsonl", whole);
    snprintf(names[2], sizeof names[2], "%s/%s", run, stage->weights);
    snprintf(names[3], sizeof names[3], "%s/%s", whole, stage->weights);
    expect_run(run, "done", STEPS);
    expect_same_file(names[0], names[1]);
    expect_same_file(names[2], names[3]);
}

// Files of a run at rest: nothing half-written is left, and at most `keep` checkpoints.
static void expect_tidy(const char *run, int keep) {
    char *output;
    check_run(&output, "cd '%s' && find %s -name '*.tmp-*' -o -name '.tmp-*'", world_dir(), run);
    EXPECT(output[0] == '\0', "left behind: %s", output);
    free(output);
    check_run(&output, "cd '%s' && ls %s/checkpoints | wc -l", world_dir(), run);
    EXPECT(atoi(output) >= 1 && atoi(output) <= keep, "%s checkpoints, want 1 to %d", output, keep);
    free(output);
}

// ---- asked to stop ----
// A STOP file is obeyed after one step: the run is a chain of attempts of one step each, so that
// every step, also those inside a block between two refreshes of the search head, is a first one
// once.
TEST(resume_after_every_step) {
    check_time_limit(300);
    for (int i = 0; i < STAGES; i++) {
        if (!CASE("%s", stages[i].name)) {
            continue;
        }
        world_with_index();
        if (strstr(stages[i].arguments, "narrow")) {
            program_must_run("index build c.yaml index.dir=narrow retriever.dtype=bf16 " TOWERS);
        }
        char run[20], whole[20], file[32];
        snprintf(run, sizeof run, "run%d", i);
        snprintf(whole, sizeof whole, "whole%d", i);
        program_must_run("%s run.dir=%s", stages[i].arguments, whole);
        // A STATUS makes it a run, so that STOP can lie there before the first attempt.
        char *path = file_join_new(world_dir(), run);
        error_die(path, file_make_directories(path));
        free(path);
        snprintf(file, sizeof file, "%s/STATUS", run);
        world_write(file, "stopped step=0\n", 15);
        for (int step = 1; step <= STEPS; step++) {
            snprintf(file, sizeof file, "%s/STOP", run);
            world_write(file, "", 0);
            program_must_run("%s run.dir=%s run.start=resume", stages[i].arguments, run);
            expect_run(run, step < STEPS ? "stopped" : "done", step);
        }
        expect_same_run(&stages[i], run, whole);
        expect_tidy(run, 2);
    }
}

TEST(resume_after_sigterm) {
    world_with_index();
    const char *verb = "pretrain c.yaml pretrain.steps=300 pretrain.batch=2 log.every=1000";
    program_must_run("%s run.dir=whole", verb);
    char *output;
    // The shell sends SIGTERM once the first loss is logged.
    check_run(&output,
              "cd '%s' && { '%s' %s run.dir=run & pid=$!; while kill -0 $pid && [ ! -s "
              "run/losses.jsonl ]; "
              "do sleep 0.01; done; kill -TERM $pid; wait $pid; echo code=$?; } 2>&1 | tail -1",
              world_dir(), check_program(), verb);
    if (strstr(output, "code=0")) {
        check_skip("300 steps were over before the signal came");
    } else {
        EXPECT(strstr(output, "code=75"), "%s", output);
        char *status = world_text_new("run/STATUS");
        EXPECT(status && strncmp(status, "preempted step=", 15) == 0, "%s", status ? status : "");
        free(status);
        program_must_run("%s run.dir=run run.start=resume", verb);
        expect_run("run", "done", 300);
        expect_same_file("run/losses.jsonl", "whole/losses.jsonl");
        expect_same_file("run/retriever.safetensors", "whole/retriever.safetensors");
    }
    free(output);
}

// ---- system calls ----
// A sanitizer's own search for leaks wants ptrace for itself.
#define TRACER "env ASAN_OPTIONS=detect_leaks=0 strace -f "
#define WRITING "write,fsync,rename,unlink,unlinkat,rmdir"
enum { KINDS = 6, MOST_CALLS = 400 };
static const char *const kinds[KINDS] = {"write", "fsync", "rename", "unlink", "unlinkat", "rmdir"};

// One call of a checkpoint: the number-th of its kind in the process.
typedef struct {
    int kind, number;
} Call;

static bool can_trace(void) {
    char *output;
    const int code = check_run(&output, TRACER "-e trace=none -o /dev/null true");
    if (code != EXIT_OK) {
        check_skip("strace does not work here: %.*s", (int)strcspn(output, "\n"), output);
    }
    free(output);
    return code == EXIT_OK;
}

// The calls of the stage's second checkpoint (of step 4, after that of step 2), in order, from a
// traced run that is left to its end. With keep=1 the removal of the first one belongs to it.
static int list_calls(Call out[MOST_CALLS], const StageCase *stage, const char *run) {
    char *output;
    const int code = program_run_under(&output, TRACER "-y -s 0 -o trace -e trace=" WRITING,
                                       "%s run.dir=%s checkpoint.every=2 checkpoint.keep=1",
                                       stage->arguments, run);
    EXPECT(code == EXIT_OK, "code %d: %s", code, output);
    free(output);
    char *text = world_text_new("trace");
    int count = 0, seen[KINDS] = {0};
    bool is_second = false;
    for (char *rest = NULL, *line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
        line += strspn(line, "0123456789 ");
        for (int k = 0; k < KINDS; k++) {
            const size_t length = strlen(kinds[k]);
            if (strncmp(line, kinds[k], length) != 0 || line[length] != '(') {
                continue;
            }
            seen[k]++;
            is_second = is_second || strstr(line, "-4.");
            if (is_second && strstr(line, "/checkpoints") && count < MOST_CALLS) {
                out[count++] = (Call){k, seen[k]};
            }
        }
    }
    free(text);
    EXPECT(count >= 15 && count < MOST_CALLS, "%d calls in a checkpoint", count);
    return count;
}

// Killed at this call of the second checkpoint, then resumed.
static void kill_at(const StageCase *stage, Call call, const char *whole) {
    char prefix[256], *output;
    check_run(NULL, "rm -rf '%s/run'", world_dir());
    snprintf(prefix, sizeof prefix,
             TRACER "-y -s 0 -o trace -e trace=" WRITING " -e inject=%s:signal=KILL:when=%d",
             kinds[call.kind], call.number);
    const int code = program_run_under(&output, prefix,
                                       "%s run.dir=run checkpoint.every=2 "
                                       "checkpoint.keep=1",
                                       stage->arguments);
    EXPECT(code == 128 + 9, "%s %d: code %d: %s", kinds[call.kind], call.number, code, output);
    free(output);
    // It died where it should: in the second checkpoint.
    char *text = world_text_new("trace"), *last = NULL;
    for (char *rest = NULL, *line = strtok_r(text, "\n", &rest);
         line && !strstr(line, "+++ killed"); line = strtok_r(NULL, "\n", &rest)) {
        last = line;
    }
    EXPECT(last && strstr(last, "/checkpoints") && strstr(last, kinds[call.kind]), "died in: %s",
           last);
    free(text);
    const int resumed = program_run(&output,
                                    "%s run.dir=run run.start=resume checkpoint.every=2 "
                                    "checkpoint.keep=1",
                                    stage->arguments);
    EXPECT(resumed == EXIT_OK && (strstr(output, "going on after step 2 of") ||
                                  strstr(output, "going on after step 4 of")),
           "killed at %s %d: code %d: %s", kinds[call.kind], call.number, resumed, output);
    free(output);
    expect_same_run(stage, "run", whole);
    expect_tidy("run", 2); // one that was being removed goes when the next is saved
}

static void kill_at_calls(const StageCase *stage, int most) {
    static Call calls[MOST_CALLS];
    world_with_index();
    const int count = list_calls(calls, stage, "whole");
    const int tried = check_is_large() || count < most ? count : most;
    fprintf(stderr, "%s: killed at %d of the %d calls of a checkpoint\n", stage->name, tried,
            count);
    for (int i = 0; i < tried; i++) { // evenly, the first and the last among them
        kill_at(stage, calls[tried == count ? i : i * (count - 1) / (tried - 1)], "whole");
    }
}

TEST(resume_after_kill_at_each_call) {
    check_time_limit(300);
    if (can_trace()) {
        kill_at_calls(&stages[READER_STAGE], MOST_CALLS);
    }
}

// The same with the search head in the checkpoint, which is large: most of its writes are alike.
TEST(resume_after_kill_sampled) {
    check_time_limit(300);
    if (can_trace()) {
        kill_at_calls(&stages[RETRIEVER_STAGE], 16);
    }
}

// ---- disk full ----
// Each attempt to save writes once and logs its failure in two writes; three attempts are seven
// writes.
static void full_disk(char prefix[256], Call first, int attempts) {
    snprintf(prefix, 256,
             TRACER "-o /dev/null -e trace=write -e inject=write:error=ENOSPC:when=%d..%d+3",
             first.number, first.number + 3 * (attempts - 1));
}

TEST(resume_disk_full) {
    check_time_limit(300);
    if (!can_trace()) {
        return;
    }
    const StageCase *stage = &stages[READER_STAGE];
    Call calls[MOST_CALLS];
    char prefix[256], *output;
    world_with_index();
    int first = 0;
    const int count = list_calls(calls, stage, "whole");
    while (first < count && strcmp(kinds[calls[first].kind], "write") != 0) {
        first++;
    }
    CHECK(first < count, "a checkpoint without a write");
    // Once: the second attempt succeeds.
    full_disk(prefix, calls[first], 1);
    int code =
        program_run_under(&output, prefix, "%s run.dir=once checkpoint.every=2", stage->arguments);
    EXPECT(code == EXIT_OK && strstr(output, "attempt 1 of 3 to save failed"), "code %d: %s", code,
           output);
    EXPECT(world_has("once/checkpoints/train-reader-00000004"), "the second attempt saved");
    expect_same_run(stage, "once", "whole");
    free(output);
    // Always: it ends with 74, the older checkpoint stands, and the run can go on from there.
    full_disk(prefix, calls[first], 3);
    code =
        program_run_under(&output, prefix, "%s run.dir=full checkpoint.every=2", stage->arguments);
    EXPECT(code == EXIT_IO, "code %d: %s", code, output);
    const char *wants[] = {"full", "No space left on device"};
    expect_error_line(output, wants, 2);
    free(output);
    EXPECT(world_has("full/checkpoints/train-reader-00000002") &&
               !world_has("full/checkpoints/train-reader-00000004"),
           "the older one, and only it");
    expect_run("full", "failed", 4);
    code = program_run(&output, "%s run.dir=full run.start=resume", stage->arguments);
    EXPECT(code == EXIT_OK && strstr(output, "going on after step 2 of 6"), "code %d: %s", code,
           output);
    expect_same_run(stage, "full", "whole");
    free(output);
    // checkpoint.on_error=warn: it goes on without that checkpoint.
    code = program_run_under(&output, prefix,
                             "%s run.dir=warn checkpoint.every=2 "
                             "checkpoint.on_error=warn",
                             stage->arguments);
    EXPECT(code == EXIT_OK && strstr(output, "checkpoint of step 4 not saved"), "code %d: %s", code,
           output);
    EXPECT(world_has("warn/checkpoints/train-reader-00000002") &&
               !world_has("warn/checkpoints/train-reader-00000004"),
           "the older one, and only it");
    expect_same_run(stage, "warn", "whole");
    free(output);
}

// ---- damaged, foreign and bad checkpoints ----
static void flip_byte(const char *name, size_t at) {
    char *path = file_join_new(world_dir(), name);
    FileBytes bytes;
    error_die(path, file_read_new(&bytes, path, (size_t)1 << 30));
    CHECK(at < bytes.size, "%s has %zu bytes", name, bytes.size);
    char *copy = xmalloc(bytes.size, 1);
    memcpy(copy, bytes.data, bytes.size);
    copy[at] ^= 4;
    error_die(path, file_replace(path, copy, bytes.size));
    free(copy);
    file_bytes_free(&bytes);
    free(path);
}

// A run that ended just before its last step, as if killed there: checkpoints of steps 2 and 4.
static void make_killed_run(const StageCase *stage, const char *run) {
    char status[64];
    program_must_run("%s run.dir=%s checkpoint.every=2", stage->arguments, run);
    snprintf(status, sizeof status, "%s/STATUS", run);
    world_write(status, "running step=5\n", 15);
}

TEST(resume_damaged_checkpoint) {
    static const char *const files[] = {"tensors.safetensors", "state.json", "MANIFEST.json"};
    const StageCase *stage = &stages[READER_STAGE];
    for (int f = 0; f < 3; f++) {
        if (CASE("%s", files[f])) {
            char run[20], whole[20], name[128], *output;
            world_with_index();
            snprintf(run, sizeof run, "run%d", f);
            snprintf(whole, sizeof whole, "whole%d", f);
            program_must_run("%s run.dir=%s", stage->arguments, whole);
            make_killed_run(stage, run);
            snprintf(name, sizeof name, "%s/checkpoints/train-reader-00000004/%s", run, files[f]);
            flip_byte(name, 40);
            // keep=1: the damaged one of step 4 must not push out the whole one of step 3.
            const int code = program_run(&output,
                                         "%s run.dir=%s run.start=resume checkpoint.every=3 "
                                         "checkpoint.keep=1",
                                         stage->arguments, run);
            EXPECT(code == EXIT_OK && strstr(output, "damaged or incomplete") &&
                       strstr(output, "going on after step 2 of 6"),
                   "code %d: %s", code, output);
            free(output);
            snprintf(name, sizeof name, "%s/checkpoints/train-reader-00000003", run);
            EXPECT(world_has(name), "the whole checkpoint is gone");
            expect_same_run(stage, run, whole);
            expect_tidy(run, 1);
        }
    }
}

TEST(resume_other_settings_are_refused) {
    const StageCase *stage = &stages[READER_STAGE];
    const char *const changes[] = {"reader.lr=0.02", "seed=2", "reader.steps=7", "evaluate.k=1"};
    for (int i = 0; i < 4; i++) {
        if (CASE("%s", changes[i])) {
            char *output, run[16];
            world_with_index();
            snprintf(run, sizeof run, "run%d", i);
            make_killed_run(stage, run);
            const int code = program_run(&output, "%s run.dir=%s run.start=resume %s",
                                         stage->arguments, run, changes[i]);
            EXPECT(code == EXIT_CONFIG, "code %d: %s", code, output);
            const char *wants[] = {"made with another seed, data or settings",
                                   "use another run.dir"};
            expect_error_line(output, wants, 2);
            free(output);
        }
    }
}

// Weights that hold a NaN: the run ends with 77 after three such losses, and saves none of them.
TEST(resume_bad_losses_are_not_saved) {
    world_with_index();
    char *path = file_join_new(world_dir(), "towers/retriever.safetensors"), *output;
    FileBytes bytes;
    error_die(path, file_read_new(&bytes, path, (size_t)1 << 30));
    char *copy = xmalloc(bytes.size, 1);
    memcpy(copy, bytes.data, bytes.size);
    const float bad = NAN;
    for (size_t at = bytes.size / 2; at + 4096 < bytes.size; at += 4096) {
        memcpy(copy + at - at % 4 + bytes.size % 4, &bad,
               sizeof bad); // data end at a multiple of 4
    }
    world_write("bad.safetensors", copy, bytes.size);
    const int code = program_run(&output, "pretrain c.yaml run.dir=run checkpoint.every=1 "
                                          "retriever.weights=bad.safetensors");
    EXPECT(code == EXIT_DIVERGED, "code %d: %s", code, output);
    const char *wants[] = {"not finite 3 steps in a row", "lower the learning rate"};
    expect_error_line(output, wants, 2);
    EXPECT(!world_has("run/checkpoints"), "a checkpoint of a bad loss");
    char *status = world_text_new("run/STATUS");
    EXPECT(status && strncmp(status, "failed step=3", 13) == 0, "%s", status ? status : "");
    free(status);
    free(output);
    free(copy);
    file_bytes_free(&bytes);
    free(path);
}
