// model_check: what the tests of whole models share: gradients against differences, planned memory.
#ifndef JOMED_TESTS_MODEL_CHECK_H
#define JOMED_TESTS_MODEL_CHECK_H

#include "models/model.h"
#include "tests/check.h"
#include "tests/emu/calls.h"

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

// Fills every tensor with values that any program can make again, so that a fixture need not hold
// weights. For element i of the file's tensor `name` (slices are cut out of it), in 64 bits:
//   h = FNV-1a of name;  z = splitmix64's output for the state h + (i+1) * 0x9e3779b97f4a7c15
//   u = (z >> 40) / 2^23 - 1, in [-1, 1);   value = (float)(centre + spread * u)
//   rank >= 2: centre 0, spread 0.35 for lora_B, 0.8 if rank <= 3 and the name has "embed", else
//   sqrt(3 / (elements per row)); below, centre 1 if the name ends in "weight", else 0, spread 0.3.
// formula_weights in tools/reference.py is the same. Sources: Fowler, Noll, Vo; Steele et al. 2014.
void tensors_formula(TensorList *list);
// The formula alone, elements first .. first+count-1; and with a tensor's centre and spread, where
// row is the number of elements per row of the file's tensor.
void formula_fill(float *out, const char *name, size_t first, size_t count, double centre,
                  double spread);
void formula_rows(float *out, const char *name, int rank, size_t row, size_t first, size_t count);

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

// The first `bytes` bytes of two pieces of device memory are the same.
bool is_same_on_device(Device *dev, const void *a, const void *b, size_t bytes);

// In the emulator: since `before` no memory was asked for or given back, and the host waited for
// the device for so many copies to it, and for nothing else. Launches there must have been.
void expect_steady(const EmuCalls *before, int copies_out);

// Frozen tensors have no gradient and no master; trainable ones do.
void expect_frozen_without_memory(const TensorList *list);

#endif
