// fuzz: one parser of foreign bytes per file, as libFuzzer calls it and as the tests replay it.
//
// FUZZ(png) { ... } is bool fuzz_png(data, size): true when the bytes were accepted. It must stand
// any bytes; what a parser promises of its results is CHECKed there, so that a wrong result stops
// the fuzzer as a crash does. `make fuzz` builds each file with FUZZER and runs it (tools/fuzz.sh);
// test_fuzz.c replays tests/data/fuzz/NAME, where ok-* must be accepted and bad-* refused.
// Left out: writers, and readers that take a path instead of bytes.
#ifndef JOMED_TESTS_FUZZ_FUZZ_H
#define JOMED_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/base.h"

// The list of targets: a file fuzz_NAME.c each.
#define FUZZ_TARGETS(F)                                                                            \
    F(dataset) F(faiss) F(hub) F(jpeg) F(jsonl) F(npy) F(npz) F(png) F(processor) F(results)       \
    F(safetensors) F(tokenizer_json) F(tokenizer_text) F(yaml)

typedef bool fuzz_fn(const uint8_t *data, size_t size);
#define FUZZ_DECLARE(name) fuzz_fn fuzz_##name;
FUZZ_TARGETS(FUZZ_DECLARE)
#undef FUZZ_DECLARE

#ifdef FUZZER
#define FUZZ(name)                                                                                 \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);                                  \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {                                 \
        log_set_level(LOG_ERROR);                                                                  \
        fuzz_##name(data, size);                                                                   \
        return 0;                                                                                  \
    }                                                                                              \
    bool fuzz_##name(const uint8_t *data, size_t size)
#else
#define FUZZ(name) bool fuzz_##name(const uint8_t *data, size_t size)
#endif

// Is it a success? A refusal must have a text, on one line, and a code that blames the input.
static inline bool fuzz_accepts(Error error) {
    CHECK(!error.code || (error.text[0] && !strchr(error.text, '\n')), "code %d: '%s'",
          (int)error.code, error.text);
    CHECK(!error.code || error.code == EXIT_BAD_DATA || error.code == EXIT_CONFIG, "code %d: '%s'",
          (int)error.code, error.text);
    return error.code == EXIT_OK;
}

// Reads every byte, so that the sanitizer sees one outside the input.
static inline void fuzz_touch(const void *data, size_t size) {
    if (size > 0) {
        static volatile uint64_t sink;
        sink = sink ^ xxh64(data, size, 0);
    }
}

#endif
