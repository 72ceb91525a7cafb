// reader_check: what the tests of readers share: a drawn reader with two pictures, prompts laid out
// by a text, and whole passes.
#ifndef JOMED_TESTS_READER_CHECK_H
#define JOMED_TESTS_READER_CHECK_H

#include "models/reader.h"
#include "tests/model_check.h"

// A reader and what it is given. The batch is the test's to fill.
typedef struct {
    Reader *reader;
    ReaderBatch batch;
    ReaderImage image[2]; // pixels drawn
} ReaderFixture;
// rows and columns of patches of both images. Weights by the test's seed, disturbed, packed.
ReaderFixture *reader_fixture_new(Device *dev, const ReaderConfig *config, DType t,
                                  bool is_base_trainable, const int sides[2][2]);
void reader_fixture_free(ReaderFixture *fixture);

enum { PROMPT_ROOM = 128 };
typedef struct {
    int32_t ids[PROMPT_ROOM];
    ReaderImage image[4];
    int T, images;
} LaidPrompt;
// A letter of layout is a text token, which follows from its place and from `which`, a digit that
// image of the fixture. The image token's id must be above 0.
LaidPrompt lay_prompt(const ReaderFixture *fixture, const char *layout, int which);

// Logits (R,V) of all wanted rows at once, and the backward of dlogits where they are given.
void reader_pass(Run *run, Reader *reader, const ReaderBatch *batch, void *logits,
                 const void *dlogits);
// A pass over the batch, with its backward where the loss has weights; see model_run.
ModelUnderTest reader_under_test(ReaderFixture *fixture);
// The logits of all wanted rows (R,V) by one pass. Caller frees.
float *reader_logits_new(Reader *reader, const ReaderBatch *batch);

#endif
