// model_check: what the tests of whole models share: gradients against differences, planned memory.
#ifndef JOMED_TESTS_MODEL_CHECK_H
#define JOMED_TESTS_MODEL_CHECK_H

#include "models/model.h"
#include "tests/check.h"

// One model under test. forward runs the model once (and, if asked, the backward of loss with
// respect to its trainable tensors) and leaves its output, `count` numbers of type run->t, in out.
// dout is d loss / d out, or NULL for the forward alone.
typedef void model_pass(void *ctx, Run *run, void *out, const void *dout);
typedef struct {
    TensorList *list;
    model_pass *pass;
    void *ctx;
    size_t count; // elements of the output
} ModelUnderTest;

// Adds N(0, sd) to every value: norms start at one and zero, adapters at zero, and a test must see
// their influence.
void tensors_disturb(TensorList *list, double sd);

// Runs one pass over an arena of exactly the planned size. Gradients are added to what is there.
// out (count), weight (count) or NULL on the host. The loss of a gradient is sum weight out.
void model_run(const ModelUnderTest *model, float *out, const float *weight, bool recomputes);

// Every trainable tensor's gradient against central differences of the f32 forward. Tried are the
// gradient's own direction under random masks (a wrong element shows) and random signs (a missing
// one shows). The bound is the truncation seen between step widths plus the rounding noise of the
// loss, measured around the starting point. A bound too wide to tell right from wrong fails the
// test.
void expect_model_gradients(const ModelUnderTest *model);

// Gradients and outputs with and without recomputation, and twice in a row, are the same bits.
void expect_recompute_equal(const ModelUnderTest *model);

// Frozen tensors have no gradient and no master; trainable ones do.
void expect_frozen_without_memory(const TensorList *list);

#endif
