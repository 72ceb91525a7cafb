// program: jomed itself, run by a test on a small task on disk.
//
// The small world is a directory: 24 passages and 12 queries (8 train, 4 test) of two classes, PNG
// files of odd sizes, and c.yaml, whose settings make every stage last a moment. With
// world_with_index also towers/ (a pretraining run) and index/, which the other verbs build on.
#ifndef JOMED_TESTS_PROGRAM_H
#define JOMED_TESTS_PROGRAM_H

#include "host/file.h"
#include "check.h"

enum { WORLD_PASSAGES = 24, WORLD_TRAIN = 8, WORLD_TEST = 4 };

// Both begin a world that no earlier case has touched, and return its directory.
const char *world(void);
const char *world_with_index(void);
const char *world_dir(void); // of the one begun last
// What the verbs after pretrain need: the world's towers.
#define TOWERS "retriever.weights=towers/retriever.safetensors"

// Runs `jomed ARGUMENTS` in the world; output as check_run. prefix, such as a tracer's command
// line, comes in front of the program.
int program_run(char **output, const char *arguments, ...) __attribute__((format(printf, 2, 3)));
int program_run_under(char **output, const char *prefix, const char *arguments, ...)
    __attribute__((format(printf, 3, 4)));
// The same with device=cuda, which is the device under test (check_device_program).
int program_run_on_device(char **output, const char *arguments, ...)
    __attribute__((format(printf, 2, 3)));
// As program_run, and a failure of the test when the code is not 0.
void program_must_run(const char *arguments, ...) __attribute__((format(printf, 1, 2)));

// ---- files of the world ----
char *world_text_new(const char *name); // content as text; NULL and a failure when it is not there
void world_write(const char *name, const void *data, size_t size);
bool world_has(const char *name);
void expect_same_file(const char *a, const char *b); // both there, not empty, the same bytes
// The same text but for its numbers, each of which is within bound * max(1, |b's|) of the other's.
// Digits inside a word are text.
void expect_close_text(const char *what, const char *a, const char *b, double bound);
// RUN/STATUS is `word`, RUN/losses.jsonl has a finite loss for each of the steps.
void expect_run(const char *run, const char *word, int steps);

// Exactly one line of the output starts with "error:", and it holds every one of the texts.
void expect_error_line(const char *output, const char *const *wants, int count);

#endif
